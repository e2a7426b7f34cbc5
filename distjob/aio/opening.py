"""What begin and connect return: a coroutine whose result can be entered at once.

lease = await jobs.begin("vm-42", Job.MODIFY)
async with jobs.begin("vm-42", Job.MODIFY) as lease: ...
task = tasks.create_task(jobs.begin("vm-42", Job.MODIFY))
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from contextlib import AbstractAsyncContextManager
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

_HOW = "write 'lease = await jobs.begin(...)', or 'async with jobs.begin(...) as lease:'"
P = ParamSpec("P")
C = TypeVar("C", bound=AbstractAsyncContextManager[Any])
F = TypeVar("F", bound=Callable[..., Any])


class Opening(Coroutine[Any, Any, C], Generic[C]):
    """A coroutine that can be entered in its result's stead."""

    __slots__ = ("_opened", "_steps")

    def __init__(self, steps: Coroutine[Any, Any, C]) -> None:
        self._steps = steps
        self._opened: C | None = None

    if not TYPE_CHECKING:  # a type checker says it by itself

        def __getattr__(self, name: str) -> Any:
            """Called for what it does not have, as for the lease's attributes."""
            raise AttributeError(f"{name!r} is the result's, and this was not awaited yet: {_HOW}")

        def __enter__(self) -> Any:
            self.close()
            raise TypeError(f"'with' can't wait: {_HOW}")

        def __exit__(self, *error: object) -> None:
            """Never called: without it Python would not get as far as `__enter__`."""

    def send(self, value: Any) -> Any:
        return self._steps.send(value)

    def throw(self, *error: Any) -> Any:
        return self._steps.throw(*error)

    def close(self) -> None:
        self._steps.close()

    def __await__(self) -> Generator[Any, Any, C]:
        return self._steps.__await__()

    async def __aenter__(self) -> C:
        self._opened = opened = await self._steps
        await opened.__aenter__()
        return opened

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        if self._opened is None:
            raise AssertionError("it was never entered")
        return await self._opened.__aexit__(kind, error, trace)


def opens(method: Callable[P, Coroutine[Any, Any, C]]) -> Callable[P, Opening[C]]:
    """Make a coroutine function one that returns an `Opening`."""

    @wraps(method)
    def opening(*args: P.args, **kwargs: P.kwargs) -> Opening[C]:
        return Opening(method(*args, **kwargs))

    return opening


def like(blocking: Callable[..., Any]) -> Callable[[F], F]:
    """Take over what a blocking method says of itself: it is true here word for word."""

    def take_over(method: F) -> F:
        method.__doc__ = blocking.__doc__
        return method

    return take_over
