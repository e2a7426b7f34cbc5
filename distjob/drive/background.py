"""What a blocking client does in the background: its threads, and how they come to their end.

They know the runner and the store, but not the client: one that nobody has is garbage, and is
closed by them. When the interpreter ends, so are all that are open.
"""

from __future__ import annotations

import threading

from distjob.drive import forgotten
from distjob.drive.blocking import BACKGROUND, Runner, log
from distjob.errors import BackendUnavailable, DistjobError
from distjob.protocol.closing import close
from distjob.protocol.hands import make_calls
from distjob.store import Store


class Background:
    """The threads of one client."""

    def __init__(self, runner: Runner, store: Store) -> None:
        self._runner = runner
        self._store = store
        self.threads = [
            threading.Thread(target=self._keep, args=(name,), name=name, daemon=True)
            for name in BACKGROUND
        ]
        for thread in self.threads:
            thread.start()
        forgotten.watch(runner.me, self._close_at_exit)

    def close(self) -> None:
        """End the threads, the session with all that it holds, and the store."""
        forgotten.forget(self._runner.me)
        try:
            self._interrupt()
            for thread in self.threads:
                if thread is not threading.current_thread():
                    thread.join()
            self._runner.run(close(self._runner.me))
        finally:
            self._runner.run(make_calls(self._runner.me))
            self._runner.me.over = True
            self._store.close()

    def drop(self) -> bool:
        """Have a client closed that is garbage; whether it was open. Takes no lock."""
        me = self._runner.me
        if self._runner.forked or me.closing:
            return False
        me.dropped = True
        me.holdings.due.set()
        return True

    def _keep(self, name: str) -> None:
        """A thread. It must never die silently: leases depend on it."""
        me = self._runner.me
        try:
            self._runner.run(BACKGROUND[name](me))
        except BaseException:
            log.exception("distjob: %s has died; all leases of this client are lost", name)
            with self._runner.lock:
                if me.session:
                    me.lose(me.session, f"{name} has died, see the log")
                me.close()
            self._runner.run(make_calls(me))
            raise
        if me.dropped and not me.closing:
            with self._runner.lock:
                me.close()
            try:
                self.close()
            except DistjobError as error:
                log.warning("distjob: closing a client that is garbage has failed: %s", error)

    def _close_at_exit(self) -> None:
        """The process ends: nobody is waited for but the store, and that not for long."""
        with self._runner.lock:
            self._runner.me.close()
        self._runner.run(close(self._runner.me))

    def _interrupt(self) -> None:
        try:
            self._store.interrupt()
        except BackendUnavailable as error:
            log.info("distjob: closing without waking the background: %s", error)
