"""``distjob config``: is this settings file right, what would it mean, and which one is it."""

from __future__ import annotations

import json
from pathlib import Path

import click
import msgspec
from click.core import ParameterSource

from distjob.cli.options import config_option
from distjob.cli.output import printable
from distjob.config import Settings, json_schema, load, open_backend
from distjob.config.backends import find
from distjob.config.promises import table


@click.group()
def config() -> None:
    """Check a settings file, tell which one is in force, or print the schema for editors."""


@config.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--connect", is_flag=True, help="Also reach the store, and print what it promises.")
def check(file: Path, connect: bool) -> None:
    """Check FILE and print the settings that it leads to, with secrets hidden.

    Exit code 0; 78 with the first error (file, line, key, what would be right); with --connect
    75 if the store can't be reached.
    """
    settings = load(file)
    for name, value in settings.__rich_repr__():
        label = settings.backend if name == "section" else name
        click.echo(printable(f"{label}: {value!r}"))
    if connect:
        store = open_backend(settings)
        try:
            promised = msgspec.structs.asdict(store.guarantees)
        finally:
            store.close()
        click.echo(f"reached: {settings.backend}")
        for name, value in promised.items():
            click.echo(f"  {name}: {value}")


@config.command()
@config_option
@click.pass_context
def path(context: click.Context, source: Path | None) -> None:
    """Tell which configuration and which store every command here uses, and why.

    Connects to nothing and makes nothing. Exit code 0; 78 if the settings are wrong.
    """
    settings = load(source)
    if source is None:
        _tell("configuration", "none", "neither --config nor DISTJOB_CONFIG names a file")
    else:
        by_option = context.get_parameter_source("source") is ParameterSource.COMMANDLINE
        _tell(
            "configuration",
            str(source.absolute()),
            f"{'--config' if by_option else 'DISTJOB_CONFIG'} says so",
        )
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


@config.command()
@click.option("--short", is_flag=True, help="Only what most people ask first.")
def backends(short: bool) -> None:
    """Print what each installed backend promises, and what not, as a Markdown table."""
    click.echo(table(short=short))


@config.command()
def schema() -> None:
    """Print the JSON Schema of the settings file, with the sections of all installed backends."""
    click.echo(json.dumps(json_schema(), indent=2))
