"""One request to one member, and its answer: in the caller's thread, or in a task.

A call is sent once. What it failed by is a `Failure`, so that who asks decides what that means.

GRPC's own rules hold for `AioCalls`: a channel belongs to the loop it was made in, and in a child
that was forked after `grpc.aio` had been used in the parent nothing of it works, if it does not
crash at once. Where several loops of a process use it, older releases log a BlockingIOError now and
then, without harm (grpc issue 25364).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio

from distjob.backend.source import Fault
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.client.members import STATUS, Member, Metadata
from distjob_etcd.faults import Failure, channel_closed

_PROCESSES: set[int] = set()
"""Processes, this one and those it was forked from, in which `grpc.aio` was used."""
_PATIENCE = 1.0
"""Seconds that gRPC may take to end calls that were cancelled."""
_CUT = Failure(
    grpc.StatusCode.CANCELLED, "the call was cancelled on our side, or its channel closed"
)


class BlockingCalls:
    """Calls in the caller's thread; a channel of the user's is not ``owned``."""

    def __init__(self, *, owned: bool = True) -> None:
        self._owned = owned

    async def call(
        self, member: Member, method: str, request: Any, seconds: float, metadata: Metadata
    ) -> Any:
        """The answer or the `Failure`. Raises `Fault` if the channel was closed."""
        try:
            return member.calls[method](request, timeout=seconds, metadata=metadata)
        except grpc.RpcError as error:
            return Failure.of(error)
        except ValueError as error:
            raise channel_closed(member.name, error) from error

    async def close(self, members: Sequence[Member]) -> None:
        """End what is under way with channels of our own, which are closed."""
        for member in members if self._owned else ():
            member.channel.close()


class AioCalls:
    """The same in tasks of the running event loop; the channels are our own."""

    def __init__(self) -> None:
        if _PROCESSES - {os.getpid()}:
            msg = (
                "this process was forked after a store on asyncio had been opened, and gRPC can't "
                "be used on asyncio in it"
            )
            raise Fault(msg, "fork before, or start processes in another way")
        _PROCESSES.add(os.getpid())
        self._calls: set[grpc.aio.UnaryUnaryCall[Any, Any]] = set()
        """Calls under way."""
        self._ending: set[asyncio.Future[Any]] = set()
        """Calls whose task was cancelled, and which gRPC has not ended yet."""

    async def call(
        self, member: Member, method: str, request: Any, seconds: float, metadata: Metadata
    ) -> Any:
        try:
            call = member.calls[method](request, timeout=seconds, metadata=metadata)
            self._calls.add(call)
            try:
                return await self._outcome(call)
            finally:
                self._calls.discard(call)
        except grpc.aio.UsageError as error:
            raise channel_closed(member.name, error) from error

    async def close(self, members: Sequence[Member]) -> None:
        for call in list(self._calls):
            call.cancel()
        for member in members:
            await self._drain(member)
            await member.channel.close()
            if member.beside is not None:
                member.beside.close()
        if self._ending:
            await asyncio.wait(self._ending, timeout=_PATIENCE)

    async def _outcome(self, call: Awaitable[Any]) -> Any:
        """What comes of ``call``, as a `Failure` if need be.

        GRPC says by a CancelledError, too, that somebody else has cancelled the call. Out of here
        one comes only if the task that waits was cancelled, and then so is the call.
        """
        doing = asyncio.ensure_future(call)
        doing.add_done_callback(_looked_at)
        try:
            await asyncio.wait([doing])
        except asyncio.CancelledError:
            doing.cancel()
            self._ending.add(doing)
            doing.add_done_callback(self._ending.discard)
            raise
        try:
            return _CUT if doing.cancelled() else doing.result()
        except grpc.RpcError as error:
            return Failure.of(error)

    async def _drain(self, member: Member) -> None:
        """Wait until gRPC has said the last word of calls that were cut off.

        It says it later than the call's end, and to this loop: were that closed by then, the
        process's next loop would be told of an error. What it has to say comes in turn, so a call
        that has no time, for which nothing is sent, is waited for.
        """
        with contextlib.suppress(grpc.aio.UsageError):
            await self._outcome(member.calls[STATUS](rpc.StatusRequest(), timeout=0))


Calls: TypeAlias = BlockingCalls | AioCalls


def _looked_at(doing: asyncio.Future[Any]) -> None:
    """Whoever was cancelled is not there any more to be told of its error."""
    if not doing.cancelled():
        doing.exception()
