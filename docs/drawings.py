"""Draws the three drawings of docs/explanation/drawings.md: python docs/drawings.py

Which jobs a mask lets in is taken from the code; a test draws them anew and compares.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from distjob.rules.jobs import DEFAULT_MASK, PLAIN_JOBS, Slot

FOLDER = Path(__file__).parent / "images"
INK, FAINT, BLUE, GREEN, RED, AMBER = (
    "#1c2733",
    "#5b6b7a",
    "#1f5fa8",
    "#1e7042",
    "#b3261e",
    "#8a5a00",
)
FILLS = {BLUE: "#e3eefb", GREEN: "#e2f3e8", RED: "#fbe6e4", AMBER: "#fdf1d8", FAINT: "#f1f4f7"}
RENEWED, DEADLINE = 1 / 3, 0.9
"""In TTLs: how often a session is renewed, when its holder takes it for lost. As in
distjob/protocol/parts.py."""


ARROW = (
    'markerWidth="8" markerHeight="8" orient="auto-start-reverse">'
    f'<path d="M0 0L8 4L0 8z" fill="{FAINT}"'
)


class Drawing:
    """An SVG of a fixed width: texts, boxes and arrows, on a ground of its own."""

    def __init__(self, height: int, title: str, about: str) -> None:
        fonts = 'role="img" font-family="system-ui, sans-serif" font-size="14"'
        self.parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" {fonts}>',
            f"<title>{escape(title)}</title>",
            f"<desc>{escape(about)}</desc>",
            f'<defs><marker id="a" viewBox="0 0 8 8" refX="7" refY="4" {ARROW}/></marker></defs>',
            f'<rect width="760" height="{height}" rx="8" fill="#ffffff"/>',
        ]

    def text(
        self,
        x: float,
        y: float,
        words: str,
        color: str = INK,
        *,
        at: str = "start",
        bold: bool = False,
    ) -> None:
        weight = ' font-weight="600"' if bold else ""
        place = f'x="{x:g}" y="{y:g}" text-anchor="{at}"'
        self.parts.append(f'<text {place} fill="{color}"{weight}>{escape(words)}</text>')

    def box(
        self,
        x: float,
        y: float,
        wide: float,
        high: float,
        color: str,
        *lines: str,
        dashed: bool = False,
    ) -> None:
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        self.parts.append(
            f'<rect x="{x:g}" y="{y:g}" width="{wide:g}" height="{high:g}" rx="6"'
            f' fill="{FILLS[color]}" stroke="{color}"{dashes}/>'
        )
        top = y + high / 2 + 5 - 9 * (len(lines) - 1)
        for number, line in enumerate(lines):
            ink = INK if number else color
            self.text(x + wide / 2, top + 18 * number, line, ink, at="middle", bold=not number)

    def line(
        self,
        x: float,
        y: float,
        x2: float,
        y2: float,
        color: str = FAINT,
        *,
        arrow: bool = False,
        dashed: bool = False,
    ) -> None:
        more = ' marker-end="url(#a)"' * arrow + ' stroke-dasharray="4 4"' * dashed
        self.parts.append(
            f'<line x1="{x:g}" y1="{y:g}" x2="{x2:g}" y2="{y2:g}" stroke="{color}"'
            f' stroke-width="1.5"{more}/>'
        )

    def __str__(self) -> str:
        return "\n".join([*self.parts, "</svg>", ""])


def slots() -> Drawing:
    passes = ", ".join(DEFAULT_MASK)
    kept = [job for job in PLAIN_JOBS if job not in DEFAULT_MASK]
    drawing = Drawing(
        330,
        "The three slots of a VM, and the mask",
        f"While a backup runs in the async slot, its mask lets {passes} into the sync slot, and"
        " keeps the others in the line.",
    )
    drawing.text(20, 32, "The line, oldest first", bold=True)
    for number, (job, color, words) in enumerate(
        [("modify", AMBER, "waits: not in the mask"), ("query", GREEN, "passes: is in the mask")]
    ):
        drawing.box(20, 52 + 84 * number, 190, 60, color, f"{job} of ctl-{'bc'[number]}", words)
    drawing.box(300, 40, 150, 190, AMBER, "mask", *DEFAULT_MASK)
    drawing.text(375, 254, "lets in these sync jobs,", FAINT, at="middle")
    drawing.text(375, 272, "while the async job runs", FAINT, at="middle")
    drawing.line(212, 82, 294, 82, RED, dashed=True)
    drawing.text(252, 74, "no", RED, at="middle")
    drawing.line(212, 166, 296, 166, arrow=True)
    drawing.line(452, 110, 526, 110, arrow=True)
    drawing.text(640, 28, "vm-42", at="middle", bold=True)
    drawing.box(530, 40, 215, 205, FAINT)
    held = {
        Slot.SYNC: ("free", GREEN),
        Slot.AGENT: ("free; no mask in its way", GREEN),
        Slot.ASYNC: ("backup of ctl-a", BLUE),
    }
    for number, slot in enumerate(Slot):
        words, color = held[slot]
        drawing.box(
            542, 52 + 63 * number, 191, 54, color, f"{slot} slot", words, dashed=color == GREEN
        )
    drawing.text(20, 304, f"Kept out by the default mask: {', '.join(kept)}.", FAINT)
    return drawing


def session() -> Drawing:
    drawing = Drawing(
        340,
        "A session: TTL, deadline, loss",
        "The holder counts nine tenths of the TTL from before it sent its last renewal; the store"
        " counts a whole TTL from when it came. So the holder stops before the next is let in.",
    )
    left, ttl = 120, 300

    def at(moment: float) -> float:
        return left + ttl * moment

    last = 2 * RENEWED
    drawing.text(20, 62, "holder", bold=True)
    drawing.text(20, 152, "store", bold=True)
    drawing.text(20, 242, "next in line", bold=True)
    for y in (58, 148, 238):
        drawing.line(left, y, 740, y)
    for number in range(3):
        drawing.line(at(number * RENEWED), 58, at(number * RENEWED) + 8, 144, arrow=True)
    drawing.text(at(0) - 4, 106, "renewals,", FAINT, at="end")
    drawing.text(at(0) - 4, 124, "each TTL / 3", FAINT, at="end")
    frozen, woken = last + 0.15, last + 1.28
    drawing.box(at(frozen), 42, ttl * (woken - frozen), 32, AMBER, "frozen")
    drawing.text(at(last), 34, "last renewal is sent", at="middle")
    gone = at(last + DEADLINE)
    drawing.line(gone, 22, gone, 116, RED, dashed=True)
    drawing.text(gone - 6, 112, f"deadline: {DEADLINE:g} TTL after that", RED, at="end")
    end = at(last + 1) + 8
    drawing.line(end, 132, end, 250, RED, dashed=True)
    drawing.line(at(last) + 8, 172, end, 172, BLUE)
    drawing.text((at(last) + 8 + end) / 2, 190, "TTL, since it came", BLUE, at="middle")
    drawing.text(end + 8, 206, "session ends", RED)
    drawing.box(end + 10, 222, 740 - end - 10, 32, GREEN, "holds")
    drawing.box(at(0), 222, end - at(0) - 6, 32, FAINT, "waits")
    drawing.text(740, 34, "wakes up", at="end")
    drawing.text(740, 92, "lease.lost", RED, at="end")
    drawing.text(
        20, 290, "Awake, the holder stops at its deadline, before the store lets in the next."
    )
    drawing.text(
        20, 312, "Frozen, it can't: what it still writes when it wakes up, the guard refuses."
    )
    return drawing


def talks() -> Drawing:
    drawing = Drawing(
        390,
        "Who talks to whom",
        "Controllers commit to the store and renew their sessions there; the store wakes them. They"
        " change the resource, with their fence, past its guard. No two controllers talk.",
    )
    drawing.box(20, 30, 190, 70, BLUE, "controller ctl-b", "waits for ctl-a")
    drawing.box(20, 150, 190, 70, BLUE, "controller ctl-a", "holds modify on vm-42")
    record = ("one record for each busy VM", "one session for each controller")
    drawing.box(500, 60, 240, 130, GREEN, "store", *record)
    drawing.box(500, 290, 240, 60, FAINT, "people", "distjob ls, serve, Grafana")
    drawing.box(20, 290, 120, 60, AMBER, "guard", "keeps marks")
    drawing.box(250, 290, 120, 60, FAINT, "resource", "disk, host")
    drawing.line(498, 80, 216, 60, arrow=True)
    drawing.text(355, 58, "wakes, with the record", at="middle")
    drawing.line(212, 165, 494, 130, arrow=True)
    drawing.text(355, 132, "commits: begin, end", at="middle")
    drawing.line(212, 195, 494, 165, arrow=True)
    drawing.text(355, 204, "renews: each TTL / 3", at="middle")
    drawing.line(620, 288, 620, 196, arrow=True, dashed=True)
    drawing.text(630, 246, "read")
    drawing.line(80, 222, 80, 284, AMBER, arrow=True)
    drawing.text(90, 258, "changes, with its fence", AMBER)
    drawing.line(142, 320, 244, 320, arrow=True)
    drawing.text(20, 370, "refuses older fences", AMBER)
    return drawing


DRAWINGS = {"slots": slots, "session": session, "talks": talks}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (FOLDER / f"{name}.svg").write_text(str(draw()))
