"""Notices that another project's package lies in this one's folder, or took a file of it away.

``distjob`` on the package index is another project; ours is ``distjob-vm``. Whoever installs both
gets one folder ``distjob``: the later ``__init__.py`` replaces the earlier one, and uninstalling
either takes it away. Knows the other project by one of its files, looks at nothing else, and
imports nothing that a program has not loaded anyway: this runs with every import of distjob.
"""

from __future__ import annotations

import os
import sys

_THEIRS = "distjob_core.py"
_REPAIR = "pip install --force-reinstall --no-deps distjob-vm"


def look() -> None:
    """Warn, once for each process, of what makes the package ``distjob`` something else."""
    folder = os.path.dirname(__file__)  # noqa: PTH120  a Path costs more than the look itself
    if os.path.exists(os.path.join(folder, _THEIRS)):  # noqa: PTH110, PTH118
        _warn(
            f"{folder} also holds the files of another project, called distjob on the package"
            " index, and one of the two has replaced the other's __init__.py."
            f" To repair it: pip uninstall distjob; {_REPAIR}"
        )
    elif getattr(sys.modules.get("distjob"), "__file__", None) is None:
        _warn(
            f"{folder} has no __init__.py: another project's distjob, which was uninstalled, has"
            f" taken it along. To repair it: {_REPAIR}"
        )


def _warn(text: str) -> None:
    import warnings

    warnings.warn(text, RuntimeWarning, stacklevel=3)
