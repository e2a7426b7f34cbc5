"""``redis.url`` taken apart: which server, as whom, which database.

Says what is wrong with a URL and never what stands in it. Stricter than redis-py, which takes a
database that is no number for number 0, and passes an option that it does not know to a connection
that does not know it either.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from urllib.parse import unquote

import msgspec

from distjob.backend.sections import Mistake, host_and_port

MOST_DB = 65535
_MOST_PATH = 107
"""Bytes: what Linux takes for the path of a socket."""
_PLACE = "redis://user:password@host:6379/0"
_SOCKET = "unix:///run/redis/redis.sock"
_PARTS = re.compile(r"(redis|rediss|unix)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?", re.DOTALL)
_OPTIONS = ("db", "username", "password")
_TLS_FILES = {"ssl_ca_certs": "ca_file", "ssl_certfile": "cert_file", "ssl_keyfile": "key_file"}
_INSTEAD: Mapping[str, str] = {
    "ssl": "for TLS the URL begins with rediss://",
    "ssl_cert_reqs": "certificates are always verified, by the CA in redis.ca_file",
    "ssl_check_hostname": "certificates are always verified, by the CA in redis.ca_file",
    **{option: f"set redis.{key} instead" for option, key in _TLS_FILES.items()},
    **dict.fromkeys(
        ("timeout", "socket_timeout", "socket_connect_timeout"), "set redis.timeout instead"
    ),
}
"""Options of redis-py, and what they are here."""


class Url(msgspec.Struct, frozen=True, kw_only=True):
    """Either ``path``, of a socket, or ``host`` and ``port``, by TLS or not."""

    path: str = ""
    host: str = ""
    port: int = 0
    tls: bool = False
    db: int = 0
    user: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Url of {self.path or self.host}"  # nobody shows a password by mistake


def taken_apart(url: str) -> Url:
    """The parts of ``url``. Raises `Mistake`."""
    found = _PARTS.fullmatch(url)
    if found is None:
        raise _wrong(f"must begin with redis://, rediss:// for TLS or unix:// ({_PLACE})")
    scheme, authority, path, query, fragment = found.groups()
    login, at, place = authority.rpartition("@")
    # A password that holds a "/", "?" or "#" ends the authority before its time.
    cut_short = "@" in path or (not at and "@" in (query or ""))
    if fragment or (cut_short and (scheme != "unix" or place)):  # a socket's path may hold one
        raise _wrong(f"special characters of user and password are percent-encoded ({_PLACE})")
    user, _, password = map(unquote, login.partition(":"))
    options = _options(query or "")
    if (user and "username" in options) or (password and "password" in options):
        raise _wrong("names the user or the password twice: leave one of them out")
    user, password = options.get("username", user), options.get("password", password)
    if scheme == "unix":
        db = _db(options.get("db", "0"), f"behind '?db=' ({_SOCKET}?db=0)")
        return Url(path=_socket(place, unquote(path)), db=db, user=user, password=password)
    host, port = _address(place)
    db, tls = _db(_one_db(path, options), f"behind the host's '/' ({_PLACE})"), scheme == "rediss"
    return Url(host=host, port=port, tls=tls, db=db, user=user, password=password)


def _wrong(right: str) -> Mistake:
    return Mistake("url", right)


def _address(place: str) -> tuple[str, int]:
    host = unquote(place)
    if not host or host.startswith(":"):
        raise _wrong(f"the host is missing ({_PLACE})")
    return host_and_port(host, 6379, "url")


def _socket(place: str, path: str) -> str:
    if place:
        raise _wrong(f"unix:// is followed by an absolute path, which begins with '/' ({_SOCKET})")
    if path.strip("/") == "" or "\0" in path:
        raise _wrong(f"unix:// is followed by the path of the server's socket ({_SOCKET})")
    if len(os.fsencode(path)) > _MOST_PATH:
        raise _wrong(f"the path of a socket has at most {_MOST_PATH} bytes")
    return path


def _one_db(path: str, options: Mapping[str, str]) -> str:
    in_path = path.removeprefix("/")
    if in_path and "db" in options:
        raise _wrong("names the database twice: leave one of them out")
    return in_path or options.get("db", "0")


def _db(text: str, where: str) -> int:
    if re.fullmatch(r"[0-9]{1,5}", text) and int(text) <= MOST_DB:
        return int(text)
    raise _wrong(f"the database is a number from 0 to {MOST_DB}, {where}")


def _options(query: str) -> dict[str, str]:
    """What stands behind the "?"."""
    found: dict[str, str] = {}
    for one in filter(None, query.split("&")):
        name, _, value = one.partition("=")
        if name in _INSTEAD:
            raise _wrong(f"has an option {name!r}: {_INSTEAD[name]}")
        if name not in _OPTIONS:  # it may be a part of a password: it is not shown
            known = ", ".join(_OPTIONS)
            raise _wrong(f"has an option behind its '?' that is not known here (known: {known})")
        if name in found:
            raise _wrong(f"has the option {name!r} twice: leave one of them out")
        found[name] = unquote(value)
    return found
