"""Destroy: kill first, ask later, as libvirt's daemon does (qemuProcessBeginStopJob).

Whoever is in a call on that domain fails at once, and ends its job; so the destroy job, which is
begun then, waits for no hung guest. If somebody has started the domain again by the time that it
is granted, it is killed again.
"""

from __future__ import annotations

from typing import Any

import libvirt

from distjob.libvirt.subject import Asked, failed_as


class Kill:
    """One destroy, in two steps: `first`, before any job, and `again`, with the job held."""

    def __init__(self, asked: Asked, domain: Any) -> None:
        self._asked = asked
        self._domain = domain
        self._not_running: libvirt.libvirtError | None = None
        self._result: Any = None

    def first(self) -> None:
        """Kill it. That it does not run is no error yet: it may be about to start."""
        try:
            self._result = self._asked.do()
        except libvirt.libvirtError as error:
            if not failed_as(error, "VIR_ERR_OPERATION_INVALID"):
                raise
            self._not_running = error

    def again(self) -> Any:
        """What ``destroy`` returns. Raises libvirtError if there was nothing to kill."""
        if self._is_active():
            return self._asked.do()
        if self._not_running is not None:
            raise self._not_running
        return self._result

    def _is_active(self) -> bool:
        try:
            return bool(self._domain.isActive())
        except libvirt.libvirtError as error:
            if failed_as(error, "VIR_ERR_NO_DOMAIN"):  # a transient one is gone with its process
                return False
            raise

    def explain(self, error: BaseException) -> None:
        """Say of an error that came between the two what has been done by then."""
        if self._not_running is None:
            error.add_note("the domain was killed before; the destroy job was not granted")
