"""``distjob demo``: three controllers, one VM, and what happens when some of them die or sleep.

The play: four acts, each step of which waits for the one before, never for a time that passed,
but for a TTL that must run out. What it claims at the end it has checked.
"""

from __future__ import annotations

import json
import secrets
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import click
import msgspec

from distjob import clock
from distjob.cli.demo.stage import PATIENCE, Event, Missing, Remote, Stage, staged
from distjob.cli.options import Source, store_options
from distjob.cli.output import say, terminable
from distjob.client import Client
from distjob.config import SessionSettings, load
from distjob.errors import DistjobError
from distjob.rules.jobs import Job, Slot
from distjob.sharded import connect

TTL = 2.5
_ROUNDS = 2
_SYNC = Slot.SYNC.value


@click.command()
@store_options
def demo(source: Source) -> None:
    """Show, in a quarter of a minute, what distjob does when controllers compete, die or sleep.

    Starts three processes that work on one VM (of a name that nobody else uses) whose disk is a
    file in a temporary folder, kills one and stops another while they hold the job, and migrates.
    Without --config the store is a temporary SQLite file. Nothing is left behind.

    Exit code 0 if all that is claimed at the end was seen to be so, else 1.
    """
    with terminable(), tempfile.TemporaryDirectory(prefix="distjob-demo-") as name:
        folder = Path(name)
        if source is None:
            source = folder / "distjob.json"  # JSON is YAML
            source.write_text(json.dumps({"sqlite": {"path": str(folder / "jobs.db")}}))
        play = _Play(source, folder)
        good = play.perform()
    sys.exit(0 if good else 1)


class _Play:
    def __init__(self, config: str | Path, folder: Path) -> None:
        self.config = config
        self.folder = folder
        self.vm = f"distjob-demo-{secrets.token_hex(4)}"
        session = SessionSettings(ttl=TTL)
        self.settings = msgspec.structs.replace(load(config), controller="demo", session=session)
        self.longest = 0.0
        """Seconds that the job of a controller that was killed may stay held."""
        self.checks: list[tuple[bool, str]] = []

    def perform(self) -> bool:
        """All acts; whether all checks were good."""
        with connect(self.settings) as client:
            self.longest = max(TTL, client.guarantees.shortest_ttl) + client.guarantees.grace + 1
            try:
                with staged(self.config, TTL, self.vm, self.folder) as stage:
                    stage.title(f"VM {self.vm}, store {self.settings.backend}, TTL {TTL:g} s")
                    try:
                        self.acts(stage, client)
                    except Missing as error:
                        self.check(str(error), good=False)
            finally:
                tidy = self.tidy(client)
        self.check("nothing of this is left in the store", good=tidy)
        stage.title("Checked")
        for good, text in self.checks:
            stage.verdict(text, good=good)
        return all(good for good, _ in self.checks)

    def acts(self, stage: Stage, client: Client) -> None:
        a, b, c = (stage.start(name) for name in ("ctl-a", "ctl-b", "ctl-c"))
        for each in (a, b, c):
            stage.expect(each, "ready")
        self.contend(stage, client, [a, b, c])
        self.kill(stage, a, b)
        a = stage.start("ctl-a")
        self.stop(stage, c, b)
        self.migrate(stage, a, b, c)
        self.look_back(stage)

    def contend(self, stage: Stage, client: Client, everybody: list[Remote]) -> None:
        stage.title(f"1. Three want to modify the VM, {_ROUNDS} times")
        served = []
        for turn in range(1, _ROUNDS + 1):
            first = len(stage.events)
            for who in everybody:
                stage.order(who, "begin", "begun", "waits", job=Job.MODIFY, wait=30)
                self.stands_in_line(client, who)
            waiting = {who.name: who for who in everybody}
            while waiting:
                begun = stage.wait("the next to begin", _begun_by(frozenset(waiting)), after=first)
                holder = waiting.pop(begun.who)
                served.append(begun.who)
                stage.order(holder, "write", "wrote", text=f"round {turn}", slot=_SYNC)
                stage.order(holder, "end", "ends", slot=_SYNC)
        asked = [who.name for who in everybody] * _ROUNDS
        self.check(f"{len(served)} jobs were granted in the order asked for", good=served == asked)

    def stands_in_line(self, client: Client, who: Remote) -> None:
        """Return when the store has the request of ``who``, behind those of all asked before."""
        limit, pause = clock.monotonic() + PATIENCE, threading.Event()
        while clock.monotonic() < limit:
            seen = client.status(self.vm)
            if any(job.controller == who.name for job in (*seen.holders, *seen.waiters)):
                return
            pause.wait(0.005)  # only the store knows, and it tells only the waiter
        raise Missing(f"{who.name} does not stand in line")

    def kill(self, stage: Stage, victim: Remote, heir: Remote) -> None:
        stage.title("2. One is killed (SIGKILL) while it holds the job")
        stage.order(victim, "begin", "begun", job=Job.MODIFY, wait=30)
        stage.order(heir, "begin", "waits", job=Job.MODIFY, wait=30)
        after = len(stage.events)
        died = clock.monotonic()
        victim.send(signal.SIGKILL)
        stage.say(f"{victim.name} was killed")
        begun = stage.expect(heir, "begun", after=after)
        took = begun.at - died
        stage.order(heir, "write", "wrote", text="after the kill", slot=_SYNC)
        stage.order(heir, "end", "ends", slot=_SYNC)
        self.check(
            f"the job of the killed one passed on after {took:.2f} s (at most {self.longest:g} s)",
            good=took <= self.longest,
        )

    def stop(self, stage: Stage, sleeper: Remote, heir: Remote) -> None:
        stage.title("3. One is stopped (SIGSTOP) for longer than its TTL while it holds the job")
        old = stage.order(sleeper, "begin", "begun", job=Job.MODIFY, wait=30)
        stage.order(heir, "begin", "waits", job=Job.MODIFY, wait=30)
        after = len(stage.events)
        sleeper.send(signal.SIGSTOP)
        stage.say(f"{sleeper.name} was stopped, just before it writes")
        sleeper.tell("write", text="too late", slot=_SYNC)
        new = stage.expect(heir, "begun", after=after)
        stage.order(heir, "write", "wrote", text="by the new holder", slot=_SYNC)
        stage.say(f"{sleeper.name} goes on where it was stopped")
        after = len(stage.events)
        sleeper.send(signal.SIGCONT)
        answer = stage.expect(sleeper, "refused", "wrote", after=after)
        checked = stage.order(sleeper, "check", "checked", slot=_SYNC)
        stage.order(heir, "end", "ends", slot=_SYNC)
        sleeper.tell("drop", slot=_SYNC)
        self.check(
            f"the late write with token {old.token} was refused by the guard, which had seen"
            f" {new.token}",
            good=answer.facts.get("error") == "StaleToken" and new.token > old.token,
        )
        self.check("the stopped one knows that its lease is lost", good=checked.facts["lost"])

    def migrate(self, stage: Stage, owner: Remote, asker: Remote, third: Remote) -> None:
        stage.title("4. One migrates the VM: queries are let in, modifications held back")
        pid = owner.process.pid
        stage.wait(f"{owner.name} connects anew", lambda event: event.facts.get("pid") == pid)
        big = stage.order(owner, "begin_async", "begun", kind="migration out")
        query = stage.order(asker, "begin", "begun", "waits", "refused", job=Job.QUERY, wait=1)
        self.check("a query began while the migration ran", good=query.name == "begun")
        stage.order(asker, "end", "ends", slot=_SYNC)
        after = len(stage.events)
        asker.tell("begin", job=Job.MODIFY, wait=0.4)
        refused = stage.expect(asker, "refused", "begun", after=after)
        said = str(refused.facts.get("said", ""))
        self.check(
            "a modify timed out, and was told who was in the way",
            good=refused.facts.get("error") == "JobTimeout"
            and "async migration out of ctl-a" in said
            and f"token {big.token}" in said,
        )
        step = stage.order(owner, "nested", "begun")
        stage.order(owner, "write", "wrote", text="migration, step 1", slot=_SYNC)
        stage.order(owner, "write", "wrote", text="migration", slot=Slot.ASYNC.value)
        stage.order(owner, "end", "ends", slot=_SYNC)
        self.check(
            "a nested step ran, and the migration's own older token was still good",
            good=step.token > big.token,
        )
        stage.order(asker, "begin", "waits", job=Job.MODIFY, wait=30)
        after = len(stage.events)
        stage.order(owner, "allow", "allows", jobs=[Job.QUERY, Job.MODIFY])
        let_in = stage.expect(asker, "begun", after=after)
        stage.order(owner, "allow", "allows", jobs=[Job.QUERY])
        stage.order(owner, "check", "checked", slot=Slot.ASYNC.value)  # the mask is set by then
        stage.order(asker, "write", "wrote", text="during the migration", slot=_SYNC)
        stage.order(asker, "end", "ends", slot=_SYNC)
        stage.order(third, "begin", "waits", job=Job.MODIFY, wait=30)
        after = len(stage.events)
        ends = stage.order(owner, "end", "ends", slot=Slot.ASYNC.value)
        last = stage.expect(third, "begun", after=after)
        stage.order(third, "write", "wrote", text="after the migration", slot=_SYNC)
        stage.order(third, "end", "ends", slot=_SYNC)
        self.check(
            "a modify began when the migration let it in, another when the migration ended",
            good=let_in.at < ends.at <= last.at,
        )

    def look_back(self, stage: Stage) -> None:
        """Over all acts: was it exclusive, did the tokens rise, is the journal what was written?"""
        begun = sorted((e for e in stage.events if e.name == "begun"), key=lambda e: e.token)
        tokens, times = [e.token for e in begun], [e.at for e in begun]
        self.check(
            f"{len(tokens)} grants, each with a larger token than the one before",
            good=len(set(tokens)) == len(tokens) and times == sorted(times),
        )
        ends = {e.token: e.at for e in stage.events if e.name == "ends"}
        sync = [e for e in begun if not e.facts["job"].startswith("async")]
        self.check(
            "no job of the sync slot began before the one before it ended, was killed or stopped",
            good=all(ends.get(one.token, 0) <= two.at for one, two in pairwise(sync)),
        )
        journal = (self.folder / "journal").read_text(encoding="utf-8").splitlines()
        wrote = [e for e in stage.events if e.name == "wrote"]
        written = [(line.split(maxsplit=2)[1], line.split(maxsplit=2)[2]) for line in journal]
        self.check(
            f"the disk holds the {len(wrote)} writes of the holders, and no other",
            good=written == [(str(e.token), e.facts["text"]) for e in wrote],
        )
        marks = [int(line.split()[1]) for line in journal if line.startswith(_SYNC)]
        rising = marks == sorted(marks)
        self.check("no write of an older token came after one of a newer", good=rising)

    def tidy(self, client: Client) -> bool:
        """Take out of the store what killed controllers left; whether nothing is there any more."""
        try:
            if not client.status(self.vm).idle:
                client.begin(self.vm, Job.MODIFY, wait=self.longest + 1).end()
            return client.status(self.vm).idle
        except DistjobError as error:
            say(str(error))
            return False

    def check(self, text: str, *, good: bool) -> None:
        self.checks.append((good, text))


def _begun_by(names: frozenset[str]) -> Callable[[Event], bool]:
    return lambda event: event.name == "begun" and event.who in names
