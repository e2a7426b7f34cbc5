"""Blocking links: calls in the caller's thread, a thread for the watch stream. They never suspend.

See `distjob_etcd.links`, which says what each of these is.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Coroutine, Sequence
from typing import Any

import grpc

from distjob.both import Lock, ThreadLock, now
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.failures import ENDED, Failure
from distjob_etcd.links import Bell, Running, Stream, closed
from distjob_etcd.members import Member, Metadata


class BlockingLinks:
    """`distjob_etcd.links.Links` in threads."""

    channels: Any = grpc

    def check(self) -> None:
        """Any thread may use them."""

    def lock(self) -> Lock:
        return ThreadLock()

    def bell(self) -> Bell:
        return _Bell()

    def start(self, steps: Coroutine[Any, Any, None], name: str) -> Running:
        return _Thread(steps, name)

    async def call(
        self, member: Member, method: str, request: Any, seconds: float, words: Metadata
    ) -> Any:
        try:
            return member.calls[method](request, timeout=seconds, metadata=words)
        except grpc.RpcError as error:
            return Failure.of(error)
        except ValueError as error:
            raise closed(member, error) from error

    def stream(self, member: Member, words: Metadata) -> Stream:
        try:
            return _Stream(member, words)
        except ValueError as error:
            raise closed(member, error) from error

    async def close(self, members: Sequence[Member], *, owned: bool) -> None:
        for member in members if owned else ():
            member.channel.close()


class _Bell:
    def __init__(self) -> None:
        self._changed = threading.Condition()

    def __enter__(self) -> object:
        return self._changed.__enter__()

    def __exit__(self, *_: object) -> None:
        self._changed.release()

    async def wait(self, seconds: float) -> None:
        self._changed.wait(seconds)

    def ring(self) -> None:
        self._changed.notify_all()


class _Thread:
    def __init__(self, steps: Coroutine[Any, Any, None], name: str) -> None:
        self._thread = threading.Thread(target=now, args=(steps,), name=name, daemon=True)
        self._thread.start()

    async def stop(self, seconds: float) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)


class _Stream:
    def __init__(self, member: Member, words: Metadata) -> None:
        self._requests: queue.SimpleQueue[rpc.WatchRequest | None] = queue.SimpleQueue()
        self._call: Any = member.watch(iter(self._requests.get, None), metadata=words)

    def put(self, request: rpc.WatchRequest) -> None:
        self._requests.put(request)

    async def read(self) -> rpc.WatchResponse | Failure:
        try:
            answer: rpc.WatchResponse = next(self._call)
        except StopIteration:
            return ENDED
        except grpc.RpcError as error:
            error.__traceback__ = None  # it is the call itself, which would so refer to itself
            return Failure.of(error)
        return answer

    def cut(self) -> None:
        self._call.cancel()

    async def close(self) -> None:
        """Nothing of the call stays: if the interpreter ends it, gRPC may wait there for ever."""
        self._requests.put(None)
        self._call.cancel()
        self._call = _OVER


class _Over:
    def cancel(self) -> None: ...


_OVER = _Over()
