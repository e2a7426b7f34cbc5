"""Jobs as a table on a terminal, which fits it: a VM's name is whole, and what is left out is told.

Columns give way from the right as the terminal gets narrow: below 110 columns the token, the
host and the pid are left out; what is too wide even then is folded, never cut.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from distjob.cli.show import Row

_NOTES = (
    *(("waits for ", "waits_for"), ("lets in ", "lets_in"), ("phase ", "phase")),
    *(("progress ", "progress"), ("asked to abort ", "abort")),
    ("if its owner is lost: ", "on_owner_loss"),
)
_WIDE = 110


def printed(rows: Sequence[Row]) -> None:
    """All of them, however long that is: it may be scrolled."""
    console = Console()
    console.print(table(rows, console.width))


class Screenful:
    """What fits the screen: trouble, if there is some, and as many jobs as there are lines for.

    A job is shown whole or not at all; a last line says how many more there are.
    """

    def __init__(self) -> None:
        self.empty = ""
        self.rows: Sequence[Row] = ()
        self.trouble = ""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """rich's way to ask how it is drawn."""
        plain, room = options.update(height=None), options.height or console.height
        if self.trouble:
            trouble = console.render_lines(Text(self.trouble, "red"), plain, pad=False)
            yield from _drawn(trouble)
            room -= len(trouble)
        if not self.rows:
            yield Text(self.empty)
            return

        def drawn(count: int) -> list[list[Segment]]:
            body = table(self.rows[:count], options.max_width)
            return console.render_lines(body, plain, pad=False)

        # No job takes less than a line, and the titles take one. More jobs never take fewer lines.
        most = min(len(self.rows), max(0, room - 1))
        shown = bisect_right(
            range(1, most + 1), room, key=lambda n: len(drawn(n)) + (n < len(self.rows))
        )
        yield from _drawn(drawn(shown))
        if rest := len(self.rows) - shown:
            more = f"{rest} more: narrow it down by --controller, --older-than, --waiting"
            yield Text(more, "bold", no_wrap=True, overflow="ellipsis")


def _drawn(lines: list[list[Segment]]) -> Iterator[Segment]:
    for line in lines:
        yield from line
        yield Segment.line()


def table(rows: Sequence[Row], width: int) -> Table:
    """Red are those whose session is over, or who have no owner; yellow what a person holds."""
    shown = Table(box=None, pad_edge=False)
    wide = width >= _WIDE
    longest = max((len(row["vm"]) for row in rows), default=0)
    shown.add_column("vm", overflow="fold", min_width=min(longest, width // 2))
    shown.add_column("slot", no_wrap=True, min_width=5)
    shown.add_column("job", overflow="fold")
    if wide:
        shown.add_column("token", no_wrap=True, justify="right")
    shown.add_column("seconds", no_wrap=True, justify="right")
    shown.add_column("controller", overflow="fold")
    shown.add_column("api", overflow="fold")
    for row in rows:
        ended, left = row["session"] == "ended", row["left"] != "-"
        held = row["left"].startswith("held")
        style = (
            "yellow" if held else "red" if ended or left else "dim" if row["place"] != "-" else ""
        )
        shown.add_row(*(Text(cell, style, overflow="fold") for cell in _cells(row, wide=wide)))
    return shown


def turned(rows: Sequence[Sequence[str]]) -> None:
    """Print a table with many columns as rows, in as many tables as the terminal is narrow."""
    console = Console()
    titles, *stores = rows
    first = max(map(len, titles))
    each = max(1, (console.width - min(first, 30)) // 16)
    for start in range(0, len(stores), each):
        part = stores[start : start + each]
        shown = Table(box=None, pad_edge=False)
        shown.add_column(max_width=30)
        for name, *_ in part:
            shown.add_column(Text(name.replace("`", "")), overflow="fold")
        for place, title in enumerate(titles[1:], 1):
            shown.add_row(Text(title), *(Text(store[place]) for store in part))
        console.print(shown, "")


def _cells(row: Row, *, wide: bool) -> list[str]:
    held = row["left"].startswith("held")
    told = [note for note in _NOTES if not (held and note[1] == "on_owner_loss")]
    notes = [f"{words}{row[name]}" for words, name in told if row[name] != "-"]
    who = row["controller"] + (f" ({row['host']}, pid {row['pid']})" if wide else "")
    if held:
        who += f"\n{row['left']}"
    elif row["left"] != "-":
        who += f"\n{row['left']}: this was its owner"
    if row["session"] == "ended":
        who += "\nsession ended"
    slot = f"waits {row['place']}" if row["place"] != "-" else row["slot"]
    token = [row["token"]] if wide else []
    job = "\n  ".join([row["job"], *notes])
    return [row["vm"], slot, job, *token, row["seconds"], who, row["api"]]
