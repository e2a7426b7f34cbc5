"""The command ``distjob``: `main` is its entry point, in app.py are its subcommands.

click and rich are an extra: this file must import without them, to say what to install.
"""

from __future__ import annotations

import sys

_EXTRA = ("click", "rich")


def main() -> None:
    """Run the command line and exit with its code; 1 if the extra ``cli`` is not installed."""
    try:
        _run()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.stderr.write(
            f"distjob: the command needs the package {missing!r}, which is not installed:"
            ' pip install "distjob-vm[cli]"\n'
        )
        sys.exit(1)


def _run() -> None:
    from distjob.cli.app import cli
    from distjob.cli.output import Unwritable, leave_unwritable, tell_of_stdout

    tell_of_stdout()
    try:
        cli(prog_name="distjob")
    except Unwritable as error:
        leave_unwritable(error)
