"""What the sections of backends are checked with, before anything is connected to.

A Struct checks itself when it is made, in its ``__post_init__``, and `distjob.store.Backend.check`
what depends on the session's TTL. Both raise `Mistake`, which says which key is wrong and what
would be right, and never shows what stands there: it may be a secret, or next to one.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_HOST = re.compile(r"\[([0-9A-Fa-f:.]+(?:%[A-Za-z0-9._-]+)?)\]|([^\x00-\x20:/@\[\]]+)")
_PORT = re.compile(r"[0-9]{1,5}")
_URL = re.compile(
    r"[a-z][a-z0-9+.-]*://(?:([^:@/?#\s]*)(?::([^@/?#\s]*))?@)?([^@/?#\s]*)(/[^?#\s]*)?"
)


class Mistake(ValueError):
    """``key`` of a section, such as ``timeout``, must be otherwise; ``right``: what it must be."""

    def __init__(self, key: str, right: str) -> None:
        super().__init__(key, right)
        self.key = key
        self.right = right

    def __str__(self) -> str:
        return f"{self.key}: {self.right}"


def check_timeout(timeout: float, ttl: float) -> None:
    """Refuse a ``timeout``, for one answer, within which a whole session ends."""
    if timeout > ttl:
        right = (
            "must be at most session.ttl, better a third of it: one answer that is lost would "
            "cost the session (not set, it is 2)"
        )
        raise Mistake("timeout", right)


def host_and_port(text: str, port: int | None, key: str) -> tuple[str, int]:
    """``host:port`` or ``[IPv6]:port`` in two. ``port``: if none is given; None: one must be.

    Raises `Mistake` about ``key``.
    """
    found = _HOST.match(text)
    rest = text[found.end() :] if found else text
    if found is None or rest[:1] not in ("", ":"):
        raise Mistake(key, "a host is a name, an IPv4 address, or an IPv6 address in brackets")
    if rest:
        if not _PORT.fullmatch(rest[1:]) or not 0 < int(rest[1:]) < 65536:
            raise Mistake(key, "a port, behind the host's ':', is a number from 1 to 65535")
        port = int(rest[1:])
    if port is None:
        raise Mistake(key, "the port is missing: host:port")
    return found[1] or found[2], port


class UrlParts(NamedTuple):
    """``scheme://user:password@host,host/path``, without the scheme; percent-escapes are undone."""

    user: str
    password: str
    hosts: tuple[str, ...]
    path: str

    @property
    def login(self) -> dict[str, str]:
        """The keys of a section that are given."""
        both = {"user": self.user, "password": self.password}
        return {key: value for key, value in both.items() if value}


def url_parts(url: str, right: str) -> UrlParts:
    """A URL that is a whole configuration, taken apart. Raises `Mistake`: it must be ``right``."""
    from urllib.parse import unquote

    found = _URL.fullmatch(url)
    if found is None:
        raise Mistake("", f"must be {right}; what is more than that is said in a file of settings")
    user, password, hosts, path = (unquote(part or "") for part in found.groups())
    return UrlParts(user, password, tuple(filter(None, hosts.split(","))), path)
