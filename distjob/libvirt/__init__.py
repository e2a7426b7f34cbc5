"""libvirt's domains, whose calls take libvirt's own job first, on every host at once.

    calls.tsv calls.py      which job each call takes: a table, and how it is read
    plan.py                 what is begun for a call, beside what is held already; pure
    subject.py              what blocking and asyncio have in common: libvirt's objects, wrapped
    watch.py                beside a long call: its progress, its abort
    blocking.py aio.py      `Domains` and `AsyncDomains`

libvirt's daemon lets one call at a time change a VM, on its host. This does the same for all
controllers on all hosts, and for sequences of calls. Needs the extra ``libvirt``; nothing else in
distjob imports this. Of libvirt it knows the public API alone: it works with every driver.
"""

from __future__ import annotations

try:
    import libvirt  # noqa: F401  asked here, so that all who import a part are told the same
except ImportError as error:
    raise ModuleNotFoundError(
        f"distjob.libvirt needs libvirt-python, which can't be imported here ({error}): pip install"
        ' "distjob-vm[libvirt]" compiles it and wants Debian\'s libvirt-dev, pkg-config and gcc'
        " (libvirt-devel, pkgconf and gcc elsewhere); or install python3-libvirt and make the venv"
        " with --system-site-packages",
        name="libvirt",
    ) from None

from distjob.libvirt.blocking import Domain, Domains
from distjob.libvirt.plan import Held

__all__ = ["Domain", "Domains", "Held"]
