"""``distjob config``: is this settings file right, what would it mean, and which one is it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from distjob.cli.options import Source, chosen_by, early_options, store_options
from distjob.cli.output import printable
from distjob.config import Settings, load
from distjob.config.backends import find
from distjob.config.redact import redacted


@click.group()
@early_options
def config() -> None:
    """Check a settings file, tell which one is in force, or print the schema for editors."""


@config.command(short_help="Check settings, and print them.")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--connect", is_flag=True, help="Also reach the store, and print what it promises.")
@store_options
def check(file: Path | None, connect: bool, source: Source) -> None:
    """Check FILE, or else the settings that are in force here, and print what they come to.

    What is printed is YAML, all keys spelled out, that means the same: variables stay variables,
    secrets are left out. Exit code 0; 78 with the first error (file, line, key, what would be
    right); with --connect 75 if the store can't be reached.
    """
    from distjob.config.paste import as_yaml

    settings = load(source if file is None else file)
    click.echo(printable(f"# checked: {file or source or 'the defaults'}"))
    for line in as_yaml(settings).splitlines():
        click.echo(printable(line))
    if connect:
        from distjob.cli.doctor import promised
        from distjob.config import open_backend

        store = open_backend(settings)
        try:
            click.echo(f"# reached {settings.backend}: {promised(store.guarantees)}")
        finally:
            store.close()


@config.command(short_help="Tell which configuration and store are in force.")
@store_options
@click.pass_context
def path(context: click.Context, source: Source) -> None:
    """Tell which configuration and which store every command here uses, and why.

    Connects to nothing and makes nothing. Exit code 0; 78 if the settings are wrong.
    """
    settings = load(source)
    if source is None:
        _tell("configuration", "none", "neither --config nor DISTJOB_CONFIG names a file")
    else:
        shown = str(source.absolute()) if isinstance(source, Path) else redacted(source)
        _tell("configuration", shown, f"{chosen_by(context)} says so")
    _tell("store", *_store(settings))


def _store(settings: Settings) -> tuple[str, str]:
    where = find(settings.backend).where
    if where is not None:
        place, why = where(settings.section)
        return f"{settings.backend} {place}", why
    shown = dict(settings.__rich_repr__())["section"]
    return f"{settings.backend} {shown}", f"backend is {settings.backend!r}"


def _tell(what: str, it: str, why: str) -> None:
    click.echo(printable(f"{what}: {it}"))
    click.echo(printable(f"  {why}"))


@config.command(short_help="Tell what each store promises.")
@click.option("--short", is_flag=True, help="Only what most people ask first.")
@click.option("--markdown", is_flag=True, help="As Markdown, on a terminal, too.")
def backends(short: bool, markdown: bool) -> None:
    """Print what each installed backend promises, and what not.

    As tables that fit the terminal, or as one table of Markdown where the output is none.
    """
    from distjob.config.promises import cells, table

    if markdown or not sys.stdout.isatty():
        click.echo(table(short=short))
        return
    from distjob.cli.table import turned

    turned(cells(short=short))


@config.command(short_help="Print the JSON Schema of the settings file.")
def schema() -> None:
    """Print the JSON Schema of the settings file, with the sections of all installed backends."""
    from distjob.config import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
