"""Who may change something: names and their tokens, in a file.

It decides what such a file looks like. The file is read at each request, so that a token that is
added or struck out counts at once.
"""

from __future__ import annotations

import hmac
import logging
import re
import stat
from pathlib import Path

from distjob.errors import ConfigError

log = logging.getLogger("distjob.serve")

SHORTEST = 20
"""Characters of a token: ``openssl rand -hex 20`` makes 40."""
_NAME = re.compile(r"[\w.@+-]{1,64}")


class People:
    """The file of tokens: a line for each person, ``NAME TOKEN``; what follows ``#`` is a note."""

    def __init__(self, file: Path) -> None:
        """Raises ConfigError."""
        self._file = file
        if file.exists() and file.stat().st_mode & stat.S_IROTH:
            log.warning("%s: everybody on this host can read these tokens: chmod 640", file)
        if not self._read():
            raise ConfigError(f"{file}: names nobody: a line for each person, NAME TOKEN")

    def who(self, token: str) -> str | None:
        """Whose token it is. Raises ConfigError."""
        given, found = token.encode(), None
        for name, known in self._read():
            if hmac.compare_digest(known.encode(), given):
                found = name
        return found

    def _read(self) -> list[tuple[str, str]]:
        try:
            lines = self._file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self._file}: the tokens can't be read: {error}") from None
        found: list[tuple[str, str]] = []
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            if len(words) != 2 or not _NAME.fullmatch(words[0]):
                raise ConfigError(f"{self._file}:{number}: must be NAME TOKEN, two words")
            if len(words[1]) < SHORTEST:
                raise ConfigError(
                    f"{self._file}:{number}: the token of {words[0]} is shorter than {SHORTEST}"
                    " characters: `openssl rand -hex 20` makes a good one"
                )
            found.append((words[0], words[1]))
        if len({token for _, token in found}) < len(found):
            raise ConfigError(f"{self._file}: two people have the same token")
        return found
