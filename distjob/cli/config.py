"""``distjob config``: is this settings file right, and what would it mean."""

from __future__ import annotations

import json
from pathlib import Path

import click
import msgspec

from distjob.cli.output import printable
from distjob.config import json_schema, load, open_backend
from distjob.config.promises import table


@click.group()
def config() -> None:
    """Check a settings file, or print the schema for editors."""


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
@click.option("--short", is_flag=True, help="Only what most people ask first.")
def backends(short: bool) -> None:
    """Print what each installed backend promises, and what not, as a Markdown table."""
    click.echo(table(short=short))


@config.command()
def schema() -> None:
    """Print the JSON Schema of the settings file, with the sections of all installed backends."""
    click.echo(json.dumps(json_schema(), indent=2))
