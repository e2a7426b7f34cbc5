"""Coroutines in virtual time: the `distjob.backend.world.World` of a simulation.

What awaits only a world, as a source and all of `distjob.backend` do, runs here step by step, as a
scheduler resumes it; so what listening does when connections break can be met in thousands of
interleavings. It knows neither stores nor jobs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Generator
from typing import Any, Literal, Protocol, Self, TypeVar

from distjob.backend.world import Bell, Lock, Running

T = TypeVar("T")
Resume = Callable[[], None]


class Scheduler(Protocol):
    """Who decides what happens next."""

    def after(self, seconds: float, do: Callable[..., None], *args: Any) -> None:
        """Do it in so many virtual seconds."""

    def jitter(self) -> float:
        """A short time, so that what is due at once happens in any order."""


class Cancelled(BaseException):
    """Thrown into steps that are cancelled."""


class Pause(Awaitable[None]):
    """Suspends the steps that await it until ``begin``'s argument is called."""

    def __init__(self, begin: Callable[[Resume], object]) -> None:
        self.begin = begin

    def __await__(self) -> Generator[Pause, None, None]:
        yield self


class Steps:
    """A coroutine under way; ``then`` is called with its result, or its error."""

    def __init__(
        self,
        scheduler: Scheduler,
        steps: Coroutine[Any, Any, Any],
        then: Callable[[Any, BaseException | None], None] = lambda *_: None,
    ) -> None:
        self.done = False
        self._scheduler = scheduler
        self._steps = steps
        self._then = then
        self._turn = 0
        scheduler.after(scheduler.jitter(), self._step, 0)

    def cancel(self) -> None:
        """As asyncio does: a `Cancelled` is raised where it waits."""
        if not self.done:
            self._turn += 1
            self._scheduler.after(0.0, self._step, self._turn, Cancelled())

    def drop(self) -> None:
        """It is never run again, as if its process were gone."""
        self.done = True
        self._steps.close()

    def _step(self, turn: int, error: BaseException | None = None) -> None:
        if self.done or turn != self._turn:
            return
        self._turn += 1
        try:
            pause = self._steps.send(None) if error is None else self._steps.throw(error)
        except StopIteration as stop:
            self._end(stop.value, None)
        except (Exception, Cancelled) as raised:  # noqa: BLE001  told to whoever waits for it
            self._end(None, raised)
        else:
            turn = self._turn
            pause.begin(lambda: self._scheduler.after(self._scheduler.jitter(), self._step, turn))

    def _end(self, result: Any, error: BaseException | None) -> None:
        self.done = True
        self._then(result, error)


class SimWorld:
    """`distjob.backend.world.World` on a scheduler, by the clock of one host."""

    kind: Literal["simulated"] = "simulated"

    def __init__(
        self,
        scheduler: Scheduler,
        monotonic: Callable[[], float],
        true_seconds: Callable[[float], float] = lambda seconds: seconds,
    ) -> None:
        self.scheduler = scheduler
        self.monotonic = monotonic
        self.true_seconds = true_seconds
        """The scheduler's seconds until the host's clock has gone on by so many."""
        self.bell: Bell = SimBell(self)

    def check(self) -> None:
        """There is but one world."""

    def lock(self) -> Lock:
        return SimLock(self)

    def spawn(self, steps: Coroutine[Any, Any, None], name: str) -> Running:  # noqa: ARG002
        return SimRunning(self, Steps(self.scheduler, steps))

    async def aside(
        self,
        call: Callable[[], T],
        undo: Callable[[], object] | None = None,  # noqa: ARG002  it takes no time
        lane: str = "",  # noqa: ARG002
    ) -> T:
        await self.sleep(0.0)
        return call()

    async def answered(self, start: Callable[[Callable[[], None]], object], seconds: float) -> bool:
        came = False
        resumed: list[Resume] = []

        def done() -> None:
            nonlocal came
            came = True
            for resume in resumed:
                resume()

        def begin(resume: Resume) -> None:
            resumed.append(resume)
            if came:
                resume()
            self.scheduler.after(self.true_seconds(max(0.0, seconds)), resume)

        start(done)
        await Pause(begin)
        return came

    async def sleep(self, seconds: float) -> None:
        """For simulated servers."""
        await Pause(lambda resume: self.scheduler.after(self.true_seconds(seconds), resume))

    def close(self) -> None:
        self.bell.close()


class SimBell:
    """`distjob.backend.world.Bell` in virtual time."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self._rung = False
        self._waiting: list[Resume] = []

    def ring(self) -> None:
        self._rung = True
        for resume in self._waiting:
            resume()
        self._waiting.clear()

    async def wait(self, seconds: float, files: Collection[int] = ()) -> None:
        assert not files, "there are no files in virtual time"
        if not self._rung:
            await Pause(lambda resume: self._begin(resume, max(0.0, seconds)))
        self._rung = False

    def close(self) -> None:
        self.ring()

    def _begin(self, resume: Resume, seconds: float) -> None:
        self._waiting.append(resume)
        self._world.scheduler.after(self._world.true_seconds(seconds), resume)


class SimLock:
    """`distjob.backend.world.Lock` in virtual time; it is fair."""

    def __init__(self, world: SimWorld) -> None:
        self._world = world
        self._held = False
        self._line: deque[list[Resume]] = deque()

    async def take(self, seconds: float | None = None) -> bool:
        if not self._held:
            self._held = True
            return True
        if seconds is not None and seconds <= 0:
            return False
        place: list[Resume] = []
        self._line.append(place)

        def begin(resume: Resume) -> None:
            place.append(resume)
            if seconds is not None:
                self._world.scheduler.after(self._world.true_seconds(seconds), resume)

        try:
            await Pause(begin)
        except BaseException:
            if place not in self._line:  # it had just been handed over
                self.leave()
            raise
        finally:
            given = place not in self._line
            if not given:
                self._line.remove(place)
        return given

    def leave(self) -> None:
        if not self._line:
            self._held = False
            return
        for resume in self._line.popleft():
            resume()

    async def __aenter__(self) -> Self:
        await self.take()
        return self

    async def __aexit__(self, *raised: object) -> None:
        self.leave()


class SimRunning:
    """`distjob.backend.world.Running` in virtual time."""

    def __init__(self, world: SimWorld, steps: Steps) -> None:
        self._world = world
        self._steps = steps

    async def stop(self, seconds: float) -> None:
        self._steps.cancel()
        until = self._world.monotonic() + seconds
        while not self._steps.done and self._world.monotonic() < until:
            await self._world.sleep(0.001)
