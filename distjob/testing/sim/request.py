"""One request of a simulated controller, on its way to the store and back.

When it arrives, or that it does not, is decided by faults.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from distjob.errors import BackendUnavailable
from distjob.protocol.effects import CloseSession, Commit, Effect, KeepAlive, OpenSession, Settle
from distjob.store import Settled

if TYPE_CHECKING:
    from distjob.testing.sim.faults import Network
    from distjob.testing.sim.machine import Task

_CHANGES = (Commit, OpenSession, KeepAlive, CloseSession, Settle)


class Request:
    """One request on its way."""

    __slots__ = ("_change", "_effect", "_net", "_settled", "_task", "_turn")

    def __init__(self, net: Network, task: Task, effect: Effect[Any]) -> None:
        self._net = net
        self._task = task
        self._turn = task.turn
        self._effect = effect
        self._change = isinstance(effect, _CHANGES)
        numbers, author = task.machine.settled, getattr(effect, "author", "")
        self._settled = numbers.get(author, 0)
        """The number that its session has, as far as the client knows."""
        task.machine.pending += 1

    def apply(self) -> Any:
        """It has reached the store, or finds it away; nobody hears of it."""
        if self._net.down:
            return None
        reply = self._net.apply(self._task.machine, self._effect, self._settled)
        self._net.world.log(self._task.name, self._effect, reply)
        return reply

    def arrive(self) -> None:
        """It has reached the store, if that can be reached now; the reply sets out."""
        net = self._net
        if not net.reaches(self._task.machine):
            net.world.after(net.patience(), self.give_up)
            return
        reply = self.apply()
        net.world.after(net.delay(), self.answer, reply, dict(net.server.settled))

    def answer(self, reply: Any, settled: dict[str, int]) -> None:
        """The reply has reached the client, if that can be reached now.

        ``settled``: the sessions' numbers when it set out.
        """
        if self._net.reaches(self._task.machine):
            if isinstance(self._effect, Settle) or isinstance(reply, Settled):
                self._task.machine.learn(settled)
            self._task.machine.pending -= 1
            self._task.resume(self._turn, reply)
        else:
            self.give_up()

    def refuse(self) -> None:
        """The client is told that it could not be sent."""
        self._fail(unanswered=False)

    def give_up(self) -> None:
        """The client is told that there is no answer."""
        self._fail(unanswered=self._change)

    def _fail(self, *, unanswered: bool) -> None:
        how = "unanswered" if unanswered else "refused"
        self._task.machine.pending -= 1
        self._task.machine.excused = True
        self._net.world.log(self._task.name, self._effect, how)
        error = BackendUnavailable(f"simulated: {how}", unanswered=unanswered)
        self._task.resume(self._turn, None, error)
