"""The members of the cluster: their channels, of our own making or the user's.

Decides options of channels and what TLS needs. Sends nothing. Knows nothing of requests, failures
and tokens, but where a user's client keeps its token.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import grpc

from distjob.backend.greenlets import refuse
from distjob.backend.transport import check_tls_files
from distjob.backend.world import World
from distjob.errors import ConfigError
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.settings import EtcdRecipe, EtcdSettings

Metadata: TypeAlias = tuple[tuple[str, str], ...]

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.enable_retries", 0),  # gRPC would send again what may have been applied
    ("grpc.enable_http_proxy", 0),  # http_proxy is for the web
    ("grpc.max_receive_message_length", -1),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 500),
    # A host that vanished is noticed; etcd refuses to be asked more often than each 5 seconds.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Each store has connections of its own: they are closed with it.
    ("grpc.use_local_subchannel_pool", 1),
)
_METHODS: dict[str, tuple[Any, Any]] = {
    "/etcdserverpb.KV/Range": (rpc.RangeRequest, rpc.RangeResponse),
    "/etcdserverpb.KV/Txn": (rpc.TxnRequest, rpc.TxnResponse),
    "/etcdserverpb.Lease/LeaseGrant": (rpc.LeaseGrantRequest, rpc.LeaseGrantResponse),
    "/etcdserverpb.Lease/LeaseRevoke": (rpc.LeaseRevokeRequest, rpc.LeaseRevokeResponse),
    # A stream, of which we use one request and one answer: on the wire a plain call is just that.
    "/etcdserverpb.Lease/LeaseKeepAlive": (rpc.LeaseKeepAliveRequest, rpc.LeaseKeepAliveResponse),
    "/etcdserverpb.Auth/Authenticate": (rpc.AuthenticateRequest, rpc.AuthenticateResponse),
    "/etcdserverpb.Cluster/MemberList": (rpc.MemberListRequest, rpc.MemberListResponse),
    "/etcdserverpb.Maintenance/Alarm": (rpc.AlarmRequest, rpc.AlarmResponse),
    "/etcdserverpb.Maintenance/Status": (rpc.StatusRequest, rpc.StatusResponse),
}
RANGE, TXN, GRANT, REVOKE, KEEP_ALIVE, AUTHENTICATE, MEMBERS, ALARM, STATUS = _METHODS
"""Methods of etcd that are asked and answered once."""
_WATCH = "/etcdserverpb.Watch/Watch"


class Member:
    """One address, its channels, and whether it answered when it was last asked."""

    def __init__(
        self, name: str, channel: Any, blocking: Callable[[], grpc.Channel] | None = None
    ) -> None:
        self.name = name
        self.channel = channel
        """For calls: of `grpc`, or of `grpc.aio`."""
        self.trusted = False
        """Whether it has answered, and has not failed since."""
        self.calls: dict[str, Any] = {
            path: channel.unary_unary(
                path,
                request_serializer=asked.SerializeToString,
                response_deserializer=answered.FromString,
            )
            for path, (asked, answered) in _METHODS.items()
        }
        self._make_blocking = blocking
        self.beside: grpc.Channel | None = None
        """For the watch, where ``channel`` can't be read by a thread."""

    def watch(self) -> Any:
        """What begins a watch stream, which a thread is to read."""
        channel = self.channel
        if self._make_blocking is not None:
            channel = self.beside = self.beside or self._make_blocking()
        return channel.stream_stream(
            _WATCH,
            request_serializer=rpc.WatchRequest.SerializeToString,
            response_deserializer=rpc.WatchResponse.FromString,
        )


def members_of(settings: EtcdSettings, channels: Any) -> list[Member]:
    """A member for each endpoint, by channels of the module ``channels``: `grpc` or `grpc.aio`.

    In an order of this client's own, so that clients spread. Nothing is sent yet. Raises
    `ConfigError`.
    """
    refuse("etcd", "eventlet", "gevent")
    check_tls_files(settings, "etcd", tls=settings.secure, how="https:// endpoints")
    recipe = settings.make if isinstance(settings, EtcdRecipe) else None
    make = partial(_checked, recipe or _maker(settings))
    members = []
    for name in shuffled(settings.names):
        blocking = None if channels is grpc else partial(make, grpc, name)
        members.append(Member(name, make(channels, name), blocking))
    return members


def _checked(make: Callable[[Any, str], Any], channels: Any, name: str) -> Any:
    """What ``make`` returns, if that is a channel of the kind that was asked for."""
    channel = make(channels, name)
    if not isinstance(channel, channels.Channel):
        msg = (
            f"EtcdRecipe.make has returned a {type(channel).__name__}, no {channels.__name__}."
            "Channel: make channels by the module that it is given"
        )
        raise ConfigError(msg)
    return channel


def shuffled(names: Sequence[str]) -> list[str]:
    """``names`` in an order of chance, which no seed that a program sets makes equal for all."""
    return random.SystemRandom().sample(names, len(names))


def member_of(client: Any, world: World) -> tuple[Member, Callable[[], Metadata]]:
    """The user's `grpc.Channel` or etcd3 client, and how to ask for its token. Never closed.

    Raises `ConfigError` if it is neither, or can't be waited for in ``world``.
    """
    refuse("etcd", "eventlet", "gevent")
    channel = client if isinstance(client, grpc.Channel) else getattr(client, "channel", None)
    if not isinstance(channel, grpc.Channel):
        msg = (
            f"EtcdRecipe.client: a {type(client).__name__} is no etcd client: pass a grpc.Channel, "
            "or a blocking client of etcd3 that keeps one as `channel`"
        )
        raise ConfigError(msg)
    if world.kind == "tasks":
        raise ConfigError("EtcdRecipe.client would block the event loop: give EtcdRecipe.make")

    def metadata() -> Metadata:
        found: Sequence[tuple[str, str]] | None = getattr(client, "metadata", None)
        return tuple(found or ())

    name = getattr(client, "_url", None) or getattr(client, "_current_endpoint_label", None)
    return Member(str(name or "the channel given"), channel), metadata


def _maker(settings: EtcdSettings) -> Callable[[Any, str], Any]:
    """What makes our own channels."""
    options = list(_OPTIONS)
    # How long a connection may take to be made.
    options.append(("grpc.min_reconnect_backoff_ms", max(1000, round(settings.timeout * 1000))))
    if settings.server_name:
        options.append(("grpc.ssl_target_name_override", settings.server_name))
    credentials = _credentials(settings) if settings.secure else None

    def make(channels: Any, name: str) -> Any:
        target = f"dns:///{name}"
        if credentials is None:
            return channels.insecure_channel(target, options)
        return channels.secure_channel(target, credentials, options)

    return make


def _credentials(settings: EtcdSettings) -> grpc.ChannelCredentials:
    ca, key, cert = (
        Path(path).read_bytes() if path else None
        for path in (settings.ca_file, settings.key_file, settings.cert_file)
    )
    return grpc.ssl_channel_credentials(ca, key, cert)
