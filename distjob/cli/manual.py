"""``python -m distjob.cli.manual FOLDER``: manual pages, of what the command says of itself.

For those who make packages: one page for each subcommand, in the language of man(7).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click

from distjob.cli.app import cli


def pages() -> Iterator[tuple[str, str]]:
    """The name of each page, such as ``distjob-config-check.1``, and its text."""
    top = click.Context(cli, info_name="distjob")
    yield from _below(top)


def _below(context: click.Context) -> Iterator[tuple[str, str]]:
    name = context.command_path.replace(" ", "-")
    yield f"{name}.1", _page(context, name)
    command = context.command
    if isinstance(command, click.Group):
        for word in command.list_commands(context):
            inner = command.get_command(context, word)
            if inner is not None:
                yield from _below(click.Context(inner, parent=context, info_name=word))


def _page(context: click.Context, name: str) -> str:
    command = context.command
    text = _paragraphs(command.help or "")
    first = _first_sentence(command)
    pieces = " ".join(command.collect_usage_pieces(context))
    lines = [
        f'.TH "{name.upper()}" "1" "" "distjob {version("distjob-vm")}" "User Commands"',
        *(".SH NAME", f"{_escaped(name)} \\- {_escaped(first)}"),
        *(".SH SYNOPSIS", f".B {_escaped(context.command_path)}", _escaped(pieces)),
        *(".SH DESCRIPTION", *text, ".SH OPTIONS"),
    ]
    for param in command.get_params(context):
        if (record := param.get_help_record(context)) is not None:
            option, said = record
            lines += [".TP", rf"\fB{_escaped(option)}\fR", _escaped(said)]
    if isinstance(command, click.Group):
        lines.append(".SH COMMANDS")
        for word in command.list_commands(context):
            inner = command.get_command(context, word)
            if inner is not None:
                about = _first_sentence(inner)
                lines += [".TP", rf"\fB{_escaped(name)}\-{_escaped(word)}\fR(1)", _escaped(about)]
    return "\n".join(lines) + "\n"


def _first_sentence(command: click.Command) -> str:
    return re.split(r"(?<=[.:])\s", " ".join((command.help or "").split()))[0].rstrip(".:")


def _paragraphs(text: str) -> Iterator[str]:
    r"""Paragraphs are filled, those after a ``\b`` are as they are."""
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph.lstrip().startswith("\b"):
            rows = (line.strip() for line in paragraph.splitlines()[1:])
            yield from (".PP", ".nf", *(f"    {_escaped(row)}" for row in rows), ".fi")
        else:
            yield from (".PP", _escaped(" ".join(paragraph.split())))


def _escaped(text: str) -> str:
    """So that roff takes nothing in it for its own."""
    plain = text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")
    return re.sub(r"^\.", r"\&.", plain, flags=re.MULTILINE)


def main(folder: Path) -> None:
    """Write all pages into ``folder``, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages():
        (folder / name).write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.stderr.write("usage: python -m distjob.cli.manual FOLDER\n")
        sys.exit(0 if "--help" in sys.argv else 2)
    main(Path(sys.argv[1]))
