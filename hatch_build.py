"""What the package index shows: the README, without links that lead nowhere there.

Links and pictures of the README are relative, as the forge and an unpacked sdist want them; on the
index they would be dead. Where ``[project.urls]`` names the ``Source``, they are made absolute.
Where it does not, a link is its text, and a picture is left out.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)\[([^][]*)\]\((?![a-z]+:|#)([^()\s]+)\)")


def for_the_index(readme: str, version: str, source: str) -> str:
    """``readme`` with its relative links made absolute, below the tag of ``version`` at ``source``.

    ``source``: the forge's page of the repository; if it is empty, the links' texts stand alone.
    """

    def link(found: re.Match[str]) -> str:
        picture, text, path = found.groups()
        if source:
            kind = "raw" if picture else "blob"
            return f"{picture}[{text}]({source.rstrip('/')}/{kind}/v{version}/{path})"
        return "" if picture else text

    return _LINK.sub(link, readme)


class ReadmeHook(MetadataHookInterface):
    """Hatchling calls it for the field ``readme``."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get("Source", "")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": for_the_index(text, metadata["version"], source),
        }
