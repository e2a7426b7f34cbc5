"""``distjob schema``: the shapes of the settings file and of what ``--json`` prints."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("what", type=click.Choice(["settings", "status", "doctor"]))
def schema(what: str) -> None:
    """Print the JSON Schema of WHAT: the settings file, or the output of a command.

    "status" is what "distjob status --json" and "distjob ls --json" print, "doctor" what
    "distjob doctor --json" does. Both carry a format_version: 1.1 has keys that 1.0 has not, 2.0
    would have taken some away.
    """
    if what == "settings":
        from distjob.config import json_schema

        shape = json_schema()
    else:
        from distjob.cli.data import schema_of

        shape = schema_of(what)
    click.echo(json.dumps(shape, indent=2))
