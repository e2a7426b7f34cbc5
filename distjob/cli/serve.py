"""``distjob serve``: all jobs in the browser, as JSON and for Prometheus."""

from __future__ import annotations

from pathlib import Path

import click

from distjob.cli.options import Source, store_options
from distjob.cli.output import EX_OSERR, fail, say
from distjob.config import load

_EXTRA = ("starlette", "uvicorn", "anyio", "h11")
_ANY = ("0.0.0.0", "::")  # noqa: S104  compared with, not bound


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    envvar="DISTJOB_SERVE_HOST",
    help="The address to listen on.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=8642,
    show_default=True,
    envvar="DISTJOB_SERVE_PORT",
    help="0 takes one that is free, and says which.",
)
@click.option(
    "--tokens",
    type=click.Path(path_type=Path),
    envvar="DISTJOB_SERVE_TOKENS",
    metavar="FILE",
    help="Who may abort, discard and evict: a line for each, NAME TOKEN. Without it, nobody.",
)
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    envvar="DISTJOB_SERVE_ALLOW_HOST",
    metavar="NAME",
    help="A name by which browsers reach it, beside the loopback's. May be given several times.",
)
@click.option(
    "--every",
    type=click.FloatRange(0.1, 60.0),
    default=0.5,
    show_default=True,
    envvar="DISTJOB_SERVE_EVERY",
    metavar="S",
    help="Seconds between two looks at the store while somebody watches.",
)
@store_options
def serve(
    *,
    source: Source,
    host: str,
    port: int,
    tokens: Path | None,
    names: tuple[str, ...],
    every: float,
) -> None:
    """Show all jobs in the browser, live: who holds, who waits for whom and for how long.

    \b
        distjob serve
        distjob serve --tokens /etc/distjob/tokens

    One client looks at the store, whatever the number of browsers. Anybody who reaches the port may
    look; only who has a token may abort, discard and evict. Listens on the loopback unless --host
    says otherwise.

    \b
    /                         the page
    /v1/vms  /v1/vms/VM       JSON
    /v1/events                server-sent events: the whole picture, then changes
    /metrics                  for Prometheus
    /healthz  /readyz         this process answers; what is shown is what the store says

    While the store can't be reached it says so, on the page too, and tries again. Ends with 0 on
    SIGTERM and Ctrl-C. Exit code 71 if the address can't be had, 78 for settings that can't be.
    """
    try:
        from distjob.serve import server
        from distjob.serve.guarded import LOOPBACK
        from distjob.serve.people import People
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        fail(f'serve needs the package {missing!r}: pip install "distjob-vm[web]"', 1)
    settings = load(source)
    people = People(tokens) if tokens else None
    try:
        there = server.listen(host, port)
    except server.CannotListen as error:
        fail(str(error), EX_OSERR)
    server.end_by_signals()  # before it is said that it serves
    inside = host in LOOPBACK
    shown = "localhost" if host in _ANY else f"[{host}]" if ":" in host else host
    what = f"tokens: {tokens}" if tokens else "reads only, no --tokens"
    say(f"serving http://{shown}:{there.getsockname()[1]}/ ({what})")
    if not inside and not names:
        say(f"anybody who reaches {host} may look; nothing is encrypted: see docs/howto/serve.md")
    allowed = {*LOOPBACK, *(name.lower() for name in names)} if inside or names else None
    with there:
        server.serve(settings, there, every=every, people=people, names=allowed)
