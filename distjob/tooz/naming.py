"""What tooz calls things, as distjob does: a lock's name, a member's, the URL and its options."""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlencode

import msgspec

from distjob.config import Settings, load
from distjob.config.backends import of_url
from distjob.drive.names import MAX_LABEL, MAX_VM_BYTES
from distjob.errors import ConfigError

PREFIX = "distjob+"
NAMESPACE = "tooz"
"""Another than distjob's own by default, so that a lock is not taken for a VM of its name."""
OPTIONS = ("config", "namespace", "timeout")


def vm_of(name: bytes) -> str:
    """The VM that stands for this lock: its name, or its digest if no VM can have that name."""
    if len(name) <= MAX_VM_BYTES:
        try:
            return name.decode()
        except UnicodeDecodeError:
            pass
    return f"sha256:{sha256(name).hexdigest()}"


def controller_of(member: bytes) -> str:
    """The member's id, as it is shown to people."""
    try:
        text = member.decode()
    except UnicodeDecodeError:
        text = "\n"
    return (text if text.isprintable() else repr(member)[2:-1])[:MAX_LABEL] or "unknown"


def settings_of(parsed: SplitResult, options: Mapping[str, Any], member: bytes) -> Settings:
    """The settings that a coordinator's URL means.

    ``options``: what stands behind its ``?``, and keyword arguments of ``get_coordinator``, each a
    list. ``config`` names a file of settings, which then says everything; else the URL does, but
    for ``namespace`` and ``timeout``: seconds after which the locks of a member that died are free.
    What else the store's URL may say stays in it. Raises ConfigError.
    """
    backend = parsed.scheme.removeprefix(PREFIX)
    query = dict(parse_qsl(parsed.query))
    own = {name: options[name][-1] for name in OPTIONS if name in options}
    for name in options:
        if name not in own and name not in query:
            known = ", ".join(OPTIONS)
            raise ConfigError(f"{parsed.scheme}: unknown option {name!r} (known: {known})")
    if "config" in own:
        settings = load(own.pop("config"))
        if own or parsed.netloc or settings.backend != backend:
            raise ConfigError(
                f"{parsed.scheme}: beside a file of settings, for {settings.backend}, nothing else"
                f" can be said: {PREFIX}{settings.backend}://?config=FILE"
            )
    else:
        left = urlencode([(name, text) for name, text in query.items() if name not in OPTIONS])
        url = f"{backend}://{parsed.netloc}{parsed.path}" + (f"?{left}" if left else "")
        session = {"ttl": _seconds(own["timeout"])} if "timeout" in own else {}
        namespace = own.get("namespace", NAMESPACE)
        settings = load({**of_url(url), "namespace": namespace, "session": session})
    return msgspec.structs.replace(settings, controller=controller_of(member))


def _seconds(text: object) -> float:
    try:
        return float(str(text))
    except ValueError:
        raise ConfigError(f"timeout is a number of seconds, not {text!r}") from None
