"""What several commands take: options that may stand before or behind the subcommand, and types.

An option before the subcommand is remembered in the context, which all of one call share; one
behind it has the last word.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from distjob.cli.output import log_to_stderr
from distjob.drive.choices import suggestion
from distjob.errors import DistjobError

Source: TypeAlias = str | Path | None
"""Where settings come from: a URL, a file, or nowhere."""
if TYPE_CHECKING:
    ParamType: TypeAlias = click.ParamType[Any]
else:
    ParamType = click.ParamType  # generic since click 8.3
F = TypeVar("F", bound=Callable[..., Any])
_CONFIG, _STORE, _VERBOSE = "distjob.config", "distjob.store", "distjob.verbose"


# -- before or behind the subcommand --------------------------------------------------------------


def _remember_store(context: click.Context, _: click.Parameter, url: str | None) -> None:
    if url is not None:
        context.meta[_STORE] = url


def _choose(context: click.Context, param: click.Parameter, file: Path | None) -> Source:
    told = context.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
    if told:
        context.meta[_CONFIG] = file
    if _CONFIG in context.meta and _STORE in context.meta:
        raise click.UsageError("give --config or --store: a URL is a whole configuration")
    return context.meta.get(_STORE) or context.meta.get(_CONFIG) or file


def chosen_by(context: click.Context) -> str:
    """Which of them all has chosen the configuration that is not the default."""
    told = "--config" if _CONFIG in context.meta else "DISTJOB_CONFIG"
    return "--store" if _STORE in context.meta else told


def _louder(context: click.Context, _: click.Parameter, count: int) -> None:
    if count:
        context.meta[_VERBOSE] = context.meta.get(_VERBOSE, 0) + count
        log_to_stderr(context.meta[_VERBOSE])


def _sources(*, expose: bool) -> Callable[[F], F]:
    store = click.option(
        "--store",
        is_eager=True,
        expose_value=False,
        callback=_remember_store,
        metavar="URL",
        help="The store, in place of a file of settings: redis://HOST, sqlite:///FILE, ...",
    )
    config = click.option(
        "--config",
        "source",
        type=click.Path(path_type=Path),
        envvar="DISTJOB_CONFIG",
        show_envvar=True,
        expose_value=expose,
        callback=_choose,
        metavar="FILE",
        help="Settings (YAML); without it the defaults, see `distjob config path`.",
    )
    return lambda command: config(store(command))


config_option = _sources(expose=True)
verbose_option = click.option(
    "-v",
    "--verbose",
    count=True,
    expose_value=False,
    callback=_louder,
    help="Log to stderr; twice: in detail.",
)


def store_options(command: F) -> F:
    """``--config``, ``--store`` and ``-v``, behind a subcommand; the first two as ``source``."""
    return verbose_option(config_option(command))


def early_options(command: F) -> F:
    """The same before the subcommand, which is given them as if they stood behind it."""
    return verbose_option(_sources(expose=False)(command))


class Runs(click.Command):
    """A command that runs another one, whose own options must not be taken for this one's.

    What stands behind ``--`` is that one: it is passed on as ``command``.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Demand ``--`` and the other command behind it, unless a shell completes the words."""
        own, separator, command = _split(args)
        asked = bool(args) and not ctx.resilient_parsing and not {"-h", "--help"} & {*own}
        if asked and not separator:
            told = "put -- before the command: distjob ... VM ... -- COMMAND"
            raise click.UsageError(told, ctx)
        left = super().parse_args(ctx, own)
        if asked and not command:
            raise click.UsageError("there is no command behind --", ctx)
        ctx.params["command"] = command
        return left

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        """The command, too."""
        return [*super().collect_usage_pieces(ctx), "-- COMMAND..."]


def _split(args: list[str]) -> tuple[list[str], bool, tuple[str, ...]]:
    at = args.index("--") if "--" in args else len(args)
    return args[:at], at < len(args), tuple(args[at + 1 :])


# -- types ----------------------------------------------------------------------------------------

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


class Seconds(ParamType):
    """A time: ``5``, ``5s``, ``2m``, ``1h30m``."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The seconds that it is."""
        if isinstance(value, float):  # a default
            return value
        text = str(value).strip().lower()
        if re.fullmatch(r"-?\d+(\.\d+)?(e\d{1,3})?", text):
            return float(text)
        if not re.fullmatch(rf"({_PART.pattern})+", text):
            self.fail(f"{value!r} is no time: 5, 5s, 2m and 1h30m are", param, ctx)
        return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


class Words(ParamType):
    """One of the texts of an enum; case is ignored, and ``-`` and ``_`` stand for a blank."""

    name = "word"

    def __init__(self, kinds: Iterable[StrEnum]) -> None:
        self._known = [kind.value for kind in kinds]

    def get_metavar(
        self,
        param: click.Parameter,
        ctx: click.Context | None = None,  # noqa: ARG002  click's
    ) -> str | None:
        """All of them, as they are typed; an argument is called by its name."""
        if param.param_type_name == "argument":
            return None
        return f"[{'|'.join(map(_dashed, self._known))}]"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> str:
        """The text as the enum has it."""
        text = re.sub(r"[-_\s]+", " ", str(value)).strip().lower()
        if text not in self._known:
            meant = suggestion(text, self._known)
            self.fail(f"{value!r} is none of {', '.join(self._known)}{meant}", param, ctx)
        return text

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002  click's
        param: click.Parameter,  # noqa: ARG002  click's
        incomplete: str,
    ) -> list[CompletionItem]:
        """With dashes: a blank would end the word."""
        dashed = (_dashed(known) for known in self._known)
        return [CompletionItem(one) for one in dashed if one.startswith(incomplete.lower())]


def _dashed(text: str) -> str:
    return text.replace(" ", "-")


# -- the VM ---------------------------------------------------------------------------------------


def complete_vms(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Of the VMs that are not idle, those whose name begins so; none if the store can't be asked.

    A shell that waits for TAB has no place for an error.
    """
    from distjob.config import load, open_backend

    logging.getLogger("distjob").addHandler(logging.NullHandler())  # nor for a warning
    try:
        store = open_backend(load(ctx.params.get("source")))
        try:
            names = sorted(vm for vm, _ in store.scan())
        finally:
            store.close()
    except DistjobError:
        return []
    return [CompletionItem(vm) for vm in names if vm.startswith(incomplete) and vm.isprintable()]


def vm_argument(*, required: bool = True) -> Callable[[F], F]:
    """The argument VM, whose values a shell completes."""
    return click.argument("vm", required=required, shell_complete=complete_vms)


def vms_argument() -> Callable[[F], F]:
    """The argument VM..., each of them another."""

    def different(ctx: click.Context, param: click.Parameter, vms: tuple[str, ...]) -> Any:
        for vm in vms:
            if vms.count(vm) > 1:
                raise click.BadParameter(f"{vm!r} is named twice", ctx, param)
        return vms

    return click.argument(
        "vms",
        metavar="VM...",
        nargs=-1,
        required=True,
        callback=different,
        shell_complete=complete_vms,
    )
