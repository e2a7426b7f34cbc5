"""The pure rules against what libvirt 9.0.0 did: every recorded trace, step by step."""

import json
from pathlib import Path

import pytest

from distjob.rules.async_job import amend
from distjob.rules.jobs import AgentJob, AsyncJob, Job, mask_of
from distjob.rules.record import JobRecord, Verdict
from distjob.rules.ticket import Owner, Ticket
from distjob.rules.words import libvirt_text

VECTORS = Path(__file__).parent.parent / "vectors"
TRACES = json.loads((VECTORS / "libvirt-9.0.0-traces.json").read_text())
OWNER = Owner("libvirt", "host", 1)


class Machine:
    """One VM on the pure record; actors are sessions."""

    def __init__(self, max_queued):
        self.record = JobRecord()
        self.max_queued = max_queued
        self.count = 0

    def holder_of(self, actor, slot):
        holder = {"sync": self.record.sync, "agent": self.record.agent, "async": self.record.async_}
        assert holder[slot].ticket.session == actor
        return holder[slot].ticket.id

    def ticket(self, actor, op, args):
        self.count += 1
        facts = {
            "begin": lambda: {"job": Job(args[0])},
            "begin_nowait": lambda: {"job": Job(args[0])},
            "begin_agent": lambda: {"agent": AgentJob(args[0])},
            "begin_async": lambda: {"job": Job.ASYNC, "kind": AsyncJob(args[0])},
            "begin_nested": lambda: {
                "job": Job.ASYNC_NESTED,
                "kind": AsyncJob(args[0]),
                "parent": self.holder_of(actor, "async"),
            },
        }[op]()
        return Ticket(
            id=f"{actor}{self.count}",
            session=actor,
            owner=OWNER,
            api=f"api-{actor}",
            asked=self.count,
            **facts,
        )

    def step(self, actor, op, args):
        """What happened, and libvirt's message if it refused."""
        if op.startswith("begin"):
            ticket = self.ticket(actor, op, args)
            verdict, self.record = self.record.request(
                ticket, wall=0.0, max_queued=self.max_queued, wait=op != "begin_nowait"
            )
            if verdict is Verdict.FULL:
                text = libvirt_text(self.record, ticket, full=True)
                return "refused", f"operation failed: {text}"
            name = {
                Verdict.GRANTED: "granted",
                Verdict.WAITING: "waiting",
                Verdict.BUSY: "refused",
            }[verdict]
            return name, None
        if op == "set_mask":
            mask = mask_of(Job(job) for job in args[0])
            self.record = amend(self.record, self.holder_of(actor, "async"), mask=mask, wall=0.0)
            return "set", None
        slot = {"end": "sync", "end_agent": "agent", "end_async": "async"}[op]
        self.record = self.record.end(self.holder_of(actor, slot), wall=0.0)
        return "ended", None


@pytest.mark.parametrize("trace", TRACES, ids=lambda trace: f"seed{trace['seed']}")
def test_libvirt_did_the_same(trace):
    machine = Machine(trace["max_queued"])
    for number, step in enumerate(trace["steps"]):
        expect, before = step["expect"], machine.record.queue
        result, message = machine.step(step["actor"], step["op"], step["args"])
        machine.record = machine.record.at(number + 1)
        granted = [ticket for ticket in before if machine.record.holder_of(ticket.id)]
        assert result == expect["result"], number
        assert message == expect.get("message"), number
        if one_of := expect.get("granted_one_of"):
            assert granted[0] == next(t for t in before if t.session in one_of), number
            assert {ticket.session for ticket in granted} <= set(one_of)
        else:
            assert sorted(ticket.session for ticket in granted) == expect["granted"], number
        if "mask" in expect:
            assert list(machine.record.async_.mask) == expect["mask"]
        assert not any(machine.record.admits(ticket) for ticket in machine.record.queue)
