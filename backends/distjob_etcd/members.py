"""The channels: of our own, one for each member, or the one of a client that the user has.

Decides options of channels and what TLS needs. Sends nothing. Knows nothing of requests, failures
and tokens, but where a user's client keeps its token.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc

from distjob.errors import ConfigError
from distjob.greenlets import refuse
from distjob_etcd import rpc_pb2 as rpc
from distjob_etcd.settings import EtcdSettings, address

Metadata = tuple[tuple[str, str], ...]

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
    """One address, its channel, and whether it answered when it was last asked."""

    def __init__(self, name: str, channel: Any) -> None:
        self.name = name
        self.channel = channel
        """Of `grpc`, or of `grpc.aio`."""
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
        self.watch: Any = channel.stream_stream(
            _WATCH,
            request_serializer=rpc.WatchRequest.SerializeToString,
            response_deserializer=rpc.WatchResponse.FromString,
        )


def members_of(settings: EtcdSettings, channels: Any) -> list[Member]:
    """A member for each endpoint, by channels of the module `grpc` or `grpc.aio`.

    Nothing is sent yet. Raises `ConfigError`.
    """
    refuse("etcd", "eventlet", "gevent")
    tls = settings.endpoints[0].startswith("https://")
    credentials = _credentials(settings) if tls else None
    options = list(_OPTIONS)
    # How long a connection may take to be made.
    options.append(("grpc.min_reconnect_backoff_ms", max(1000, round(settings.timeout * 1000))))
    if settings.server_name:
        options.append(("grpc.ssl_target_name_override", settings.server_name))
    members = []
    for endpoint in dict.fromkeys(settings.endpoints):
        name = address(endpoint)
        target = f"dns:///{name}"
        channel = (
            channels.secure_channel(target, credentials, options)
            if credentials
            else channels.insecure_channel(target, options)
        )
        members.append(Member(name, channel))
    return members


def member_of(client: Any) -> tuple[Member, Callable[[], Metadata]]:
    """The user's `grpc.Channel` or etcd3 client, and how to ask for its token. Never closed."""
    refuse("etcd", "eventlet", "gevent")
    channel = client if isinstance(client, grpc.Channel) else getattr(client, "channel", None)
    if not isinstance(channel, grpc.Channel):
        msg = (
            f"a {type(client).__name__} is no etcd client: pass a grpc.Channel, or a blocking "
            "client of etcd3 that keeps one as `channel`"
        )
        raise ConfigError(msg)

    def metadata() -> Metadata:
        found: Sequence[tuple[str, str]] | None = getattr(client, "metadata", None)
        return tuple(found or ())

    name = getattr(client, "_url", None) or getattr(client, "_current_endpoint_label", None)
    return Member(str(name or "the channel given"), channel), metadata


def _credentials(settings: EtcdSettings) -> grpc.ChannelCredentials:
    read = {}
    for key in ("ca_file", "cert_file", "key_file"):
        path = getattr(settings, key)
        try:
            read[key] = Path(path).read_bytes() if path else None
        except OSError as error:
            msg = f"etcd.{key}: {path} can't be read: {error.strerror}"
            raise ConfigError(msg) from error
    _check_pem(settings)
    return grpc.ssl_channel_credentials(read["ca_file"], read["key_file"], read["cert_file"])


def _check_pem(settings: EtcdSettings) -> None:
    """GRPC tells of a broken file only in its log, and then connects to nobody."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if settings.ca_file:
            context.load_verify_locations(settings.ca_file)
    except ssl.SSLError as error:
        msg = f"etcd.ca_file: {settings.ca_file} holds no certificate in PEM ({error.reason})"
        raise ConfigError(msg) from error
    try:
        if settings.cert_file:
            context.load_cert_chain(settings.cert_file, settings.key_file, password="")
    except ssl.SSLError as error:
        msg = (
            f"etcd.cert_file, etcd.key_file: {settings.cert_file} and {settings.key_file} are no "
            f"certificate and its key in PEM, without a passphrase ({error.reason})"
        )
        raise ConfigError(msg) from error
