"""Explore from the command line, with as many processes as there are processors.

python -m distjob.testing.explore --depth 2 --main
python -m distjob.testing.explore --script handover --plan "17 crash a; 9 early"
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys

from distjob.testing.explore.deviations import Deviation, Plan
from distjob.testing.explore.scripts import BY_NAME, SCRIPTS
from distjob.testing.explore.search import explore, play
from distjob.testing.sim.calls import Violated

SHOWN = 3
"""So many violations of a script are told in full."""


def written(plan: Plan) -> str:
    """A plan as it is given on the command line."""
    return "; ".join(f"{step} {deviation}" for step, deviation in plan)


def read(text: str) -> Plan:
    """The plan that `written` has written."""
    plan = []
    for part in filter(None, (part.strip() for part in text.split(";"))):
        step, kind, *rest = part.split()
        who = next((word for word in rest if not word.isdigit()), "")
        number = next((int(word) for word in rest if word.isdigit()), 0)
        plan.append((int(step), Deviation(kind, who, number)))
    return tuple(plan)


def main() -> int:
    """Explore, or tell one schedule step by step."""
    parser = argparse.ArgumentParser(prog="python -m distjob.testing.explore")
    parser.add_argument("--depth", type=int, default=1, help="how many deviations, at most")
    parser.add_argument("--main", action="store_true", help="the four main scripts only")
    parser.add_argument("--script", choices=sorted(BY_NAME), help="this one only")
    parser.add_argument("--plan", help="tell this schedule of the script, step by step")
    asked = parser.parse_args()
    if asked.plan is not None:
        if not asked.script:
            parser.error("--plan needs --script")
        return _tell(asked.script, read(asked.plan))
    names = [s.name for s in SCRIPTS if s.main or not asked.main]
    names = [asked.script] if asked.script else names
    failed = 0
    with multiprocessing.get_context("spawn").Pool(min(len(names), os.cpu_count() or 1)) as pool:
        work = [pool.apply_async(explore, (name, asked.depth)) for name in names]
        for name, runs, known, found, seconds in (one.get() for one in work):
            failed += len(found)
            sys.stdout.write(
                f"{name}: {runs} schedules, {known} of them to what was known,"
                f" {len(found)} violations, {seconds:.1f} s\n"
            )
            for one in found[:SHOWN]:
                again = f'--script "{name}" --plan "{written(one.plan)}"'
                sys.stdout.write(f"  {one.text}\n  python -m distjob.testing.explore {again}\n")
            sys.stdout.flush()
    return 1 if failed else 0


def _tell(name: str, plan: Plan) -> int:
    try:
        play(BY_NAME[name], plan, told=print)
    except Violated as violated:
        sys.stdout.write(f"{violated}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
