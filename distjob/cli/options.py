"""What several commands take."""

from __future__ import annotations

from pathlib import Path

import click

config_option = click.option(
    "--config",
    "source",
    type=click.Path(path_type=Path),
    envvar="DISTJOB_CONFIG",
    show_envvar=True,
    metavar="FILE",
    help="Settings (YAML); without it the defaults, see `distjob config path`.",
)
