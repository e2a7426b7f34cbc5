"""Arguments that are one of a few: the right enum or its text, and what is said of all else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum, StrEnum
from functools import partial
from typing import Any, get_args

import pytest

from distjob import AgentJob, AsyncJob, BadRequest, Client, Job, OnOwnerLoss, Slot
from distjob.drive.choices import suggestion
from distjob.fencing import Guard
from distjob.rules import jobs
from distjob.testing.memory import AsyncMemoryStore, MemoryServer, MemoryStore
from distjob.testing.onloop import ProxyClient


class Mine(StrEnum):
    """A program's own, with texts that are distjob's, too."""

    MODIFY = "modify"
    SAVE = "save"
    RELEASE = "release"
    SYNC = "sync"


class Plain(Enum):
    MODIFY = "modify"


CALLS: dict[str, Callable[[Any, Any], object]] = {
    "begin": lambda client, job: client.begin("vm", job),
    "try_begin": lambda client, job: client.try_begin("vm", job),
    "agent of begin": lambda client, job: client.begin("vm", Job.QUERY, agent=job),
    "agent of try_begin": lambda client, job: client.try_begin("vm", Job.QUERY, agent=job),
    "begin_agent": lambda client, job: client.begin_agent("vm", job),
    "begin_async": lambda client, job: client.begin_async("vm", job),
    "on_owner_loss": lambda client, what: client.begin_async("vm", "save", on_owner_loss=what),
    "adopt": lambda client, job: client.adopt("vm", job),
    "allow": lambda client, job: client.begin_async("mask", "save").allow("query", job),
}
PLAIN = "query, destroy, suspend, modify, abort, migration operation, modify migration safe"
LONG = "migration out, migration in, save, dump, snapshot, start, backup, maintenance"
KNOWN = {
    **dict.fromkeys(("begin", "try_begin", "allow"), PLAIN),
    **dict.fromkeys(("agent of begin", "agent of try_begin", "begin_agent"), "query, modify"),
    **dict.fromkeys(("begin_async", "adopt"), LONG),
    "on_owner_loss": "release, orphan",
}
SYNC = "is a sync job, for begin(), try_begin() and allow()"
AGENT = "is a job of the guest agent, for begin_agent() and begin(..., agent=...)"
ASYNC = "is an async job, for begin_async() and adopt()"
MADE = "is made by begin_async() and its lease's nested(), never asked for"
POLICY = "is a value of on_owner_loss, for begin_async(..., on_owner_loss=...)"
FOREIGN = "is of an enum that is not distjob's: pass a member of {kinds}, or its text"
HOMES: list[tuple[object, str, str]] = [
    (Job.MODIFY, "Job.MODIFY", SYNC),
    (Job.ASYNC, "Job.ASYNC", MADE),
    (Job.ASYNC_NESTED, "Job.ASYNC_NESTED", MADE),
    (AgentJob.MODIFY, "AgentJob.MODIFY", AGENT),
    (AgentJob.QUERY, "AgentJob.QUERY", AGENT),
    (AsyncJob.SAVE, "AsyncJob.SAVE", ASYNC),
    (OnOwnerLoss.RELEASE, "OnOwnerLoss.RELEASE", POLICY),
    (Slot.SYNC, "Slot.SYNC", "is a slot, for distjob.fencing.Guard"),
    (Mine.MODIFY, "Mine.MODIFY", FOREIGN),
    (Mine.SAVE, "Mine.SAVE", FOREIGN),
    (Mine.RELEASE, "Mine.RELEASE", FOREIGN),
    (Plain.MODIFY, "Plain.MODIFY", FOREIGN),
    ("suspend", "'suspend'", SYNC),
    ("dump", "'dump'", ASYNC),
    ("async", "'async'", MADE),
    ("async nested", "'async nested'", MADE),
    ("orphan", "'orphan'", POLICY),
]
"""A value, how it is shown, and where it is said to belong if it was given to the wrong one."""
TAKEN = {
    "begin": Job,
    "try_begin": Job,
    "allow": Job,
    "agent of begin": AgentJob,
    "agent of try_begin": AgentJob,
    "begin_agent": AgentJob,
    "begin_async": AsyncJob,
    "adopt": AsyncJob,
    "on_owner_loss": OnOwnerLoss,
}


def right(call: str, value: object) -> bool:
    kinds = TAKEN[call]
    if isinstance(value, Enum):
        return type(value) is kinds and value not in (Job.ASYNC, Job.ASYNC_NESTED)
    return str(value) in KNOWN[call].split(", ")


@pytest.fixture(params=["blocking", "asyncio"])
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    server = MemoryServer()
    made: Any = (
        Client(MemoryStore(server))
        if request.param == "blocking"
        else ProxyClient(partial(AsyncMemoryStore.connect, server))
    )
    with made as client:
        yield client


@pytest.mark.parametrize("call", CALLS)
def test_what_belongs_elsewhere_is_told_where(client: Any, call: str) -> None:
    refused = 0
    for value, shown, home in HOMES:
        if right(call, value):
            continue
        with pytest.raises(BadRequest) as error:
            CALLS[call](client, value)
        vm = "mask" if call == "allow" else "vm"
        told = home.format(kinds=TAKEN[call].__name__)
        assert str(error.value) == f"VM {vm!r}: {shown} {told} (known here: {KNOWN[call]})"
        end_all(client)
        refused += 1
    assert refused >= 12
    assert client.list() == []


def end_all(client: Any) -> None:
    for vm in client.list():
        client.evict(vm.vm, [job.ticket for job in vm.holders])


@pytest.mark.parametrize("call", CALLS)
def test_what_is_known_nowhere(client: Any, call: str) -> None:
    nouns = {Job: "a sync job", AgentJob: "a job of the guest agent", AsyncJob: "an async job"}
    noun = nouns.get(TAKEN[call], "a value of on_owner_loss")
    vm = "mask" if call == "allow" else "vm"
    for value in ("xyzzy", "", 7, b"modify", None, ["query"], object):
        if value is None and call.startswith("agent of"):
            continue  # it means that there is none
        with pytest.raises(BadRequest) as error:
            CALLS[call](client, value)
        said = f"VM {vm!r}: {value!r} is not {noun} (known: {KNOWN[call]})"
        assert str(error.value) == said
        end_all(client)


@pytest.mark.parametrize(
    ("call", "typo", "meant"),
    [
        ("begin", "modfy", "modify"),
        ("begin", "MODIFY", "modify"),
        ("try_begin", "MIGRATION_OP", "migration operation"),
        ("allow", "destory", "destroy"),
        ("begin_agent", "querry", "query"),
        ("agent of begin", "Modify", "modify"),
        ("begin_async", "migration_out", "migration out"),
        ("begin_async", "migration-in", "migration in"),
        ("adopt", "bakcup", "backup"),
        ("on_owner_loss", "orphaned", "orphan"),
    ],
)
def test_what_was_meant(client: Any, call: str, typo: str, meant: str) -> None:
    with pytest.raises(
        BadRequest, match=f"{typo!r} is not .*; did you mean {meant!r}\\? \\(known: "
    ):
        CALLS[call](client, typo)


def test_each_takes_its_own_members_and_their_texts(client: Any) -> None:
    slots = {"begin": Slot.SYNC, "try_begin": Slot.SYNC, "begin_agent": Slot.AGENT}
    slots["begin_async"] = Slot.ASYNC
    for call, slot in slots.items():
        for member in TAKEN[call]:
            for value in (member, member.value) if right(call, member) else ():
                lease: Any = CALLS[call](client, value)
                [holder] = client.status("vm").holders
                assert holder.slot is slot
                lease.end()
    for policy in OnOwnerLoss:
        for value in (policy, policy.value):
            with client.begin_async("vm", "save", on_owner_loss=value):
                assert client.status("vm").long.on_owner_loss is policy
    with client.begin_async("vm", "save") as job:
        for value in (Job.MODIFY, "modify"):
            job.allow(value)
            assert client.status("vm").mask == (Job.DESTROY, Job.MODIFY)
    with client.begin("vm", Job.MODIFY, agent="modify"):
        assert {holder.slot for holder in client.status("vm").holders} == {Slot.SYNC, Slot.AGENT}


def test_a_guard_takes_slots_only(tmp_path: Any) -> None:
    with Guard(tmp_path / "marks.db", volatile=True) as guard:
        for value, shown in (
            (Job.ASYNC, "Job.ASYNC"),
            (Mine.SYNC, "Mine.SYNC"),
            ("async nested", "'async nested'"),
        ):
            with pytest.raises(BadRequest) as error:
                guard.highest("vm", value)
            assert str(error.value).startswith(f"VM 'vm': {shown} is ")
            assert str(error.value).endswith(" (known here: sync, agent, async)")
        with pytest.raises(BadRequest, match=r"'snyc' is not a slot; did you mean 'sync'\?"):
            guard.highest("vm", "snyc")
        assert guard.highest("vm", "async") == guard.highest("vm", Slot.SYNC) == 0


@pytest.mark.parametrize(
    ("taken", "members"),
    [
        (jobs.JobLike, jobs.PLAIN_JOBS),
        (jobs.AgentJobLike, AgentJob),
        (jobs.AsyncJobLike, AsyncJob),
        (jobs.OnOwnerLossLike, OnOwnerLoss),
    ],
)
def test_type_checkers_know_all_texts(taken: Any, members: Any) -> None:
    kind, *literals = get_args(taken)
    assert {type(member) for member in members} == {kind}
    texts = [text for literal in literals for text in get_args(literal)]
    assert texts == [member.value for member in members]


def test_keys_are_suggested_as_before() -> None:
    assert suggestion("urll", ["url", "user"]) == "; did you mean 'url'?"
    assert suggestion("CA-FILE", ["ca_file"]) == "; did you mean 'ca_file'?"
    assert suggestion("nothing like it", ["url"]) == ""
