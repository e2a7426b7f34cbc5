"""What a grant makes void: case by case, as one word, and over random histories of the rules."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distjob.errors import BadRequest
from distjob.rules.async_job import adopt, detach
from distjob.rules.fence import MAX_TOKEN, Fence, fence_of
from distjob.rules.jobs import AgentJob, AsyncJob, Job, OnOwnerLoss, Slot
from distjob.rules.record import JobRecord, Verdict
from distjob.rules.ticket import Owner, Ticket

SYNC, AGENT, ASYNC = Slot
OUT = AsyncJob.MIGRATION_OUT


def ticket(name: str, session: str = "s", **what: object) -> Ticket:
    owner = Owner("ctl", "host", 1)
    return Ticket(id=name, session=session, owner=owner, api=name, asked=0.0, **what)  # type: ignore[arg-type]


MODIFY = ticket("modify", job=Job.MODIFY)
QUERY = ticket("query", job=Job.QUERY)
BOTH = ticket("both", job=Job.QUERY, agent=AgentJob.MODIFY)
GUEST = ticket("guest", agent=AgentJob.MODIFY)
LONG = ticket("long", job=Job.ASYNC, kind=OUT)
KEPT = ticket("kept", job=Job.ASYNC, kind=OUT, on_owner_loss=OnOwnerLoss.ORPHAN)
HEIR = ticket("heir", "heirs", job=Job.ASYNC, kind=OUT)


def step_of(parent: Ticket) -> Ticket:
    return ticket("step", job=Job.ASYNC_NESTED, kind=OUT, parent=parent.id)


class History:
    """A VM's record, commit by commit."""

    def __init__(self) -> None:
        self.version = 0
        self.record = JobRecord()

    def commit(self, record: JobRecord) -> None:
        self.version += 10
        self.record = record.at(self.version)

    def begin(self, ticket: Ticket) -> Fence:
        verdict, record = self.record.request(ticket, wall=0.0)
        assert verdict is Verdict.GRANTED
        self.commit(record)
        return fence_of(self.record, ticket.id)

    def end(self, ticket: Ticket) -> None:
        self.commit(self.record.end(ticket.id, wall=0.0))

    def adopt(self, ticket: Ticket) -> Fence:
        verdict, record = adopt(self.record, ticket)
        assert verdict is Verdict.GRANTED
        self.commit(record)
        return fence_of(self.record, ticket.id)


@pytest.fixture
def vm() -> History:
    return History()


# -- case by case ---------------------------------------------------------------------------------


def test_a_job_alone_voids_all_before_it(vm: History) -> None:
    vm.commit(vm.record)
    for one, own in ((MODIFY, (SYNC,)), (GUEST, (AGENT,)), (LONG, (ASYNC,)), (BOTH, (SYNC, AGENT))):
        token = vm.version + 10
        assert vm.begin(one) == Fence(own, token, token, token)
        vm.end(one)


def test_beside_an_async_job_its_own_token_is_the_floor(vm: History) -> None:
    vm.begin(LONG)
    assert vm.begin(QUERY) == Fence((SYNC,), 20, 20, 10)
    vm.end(QUERY)
    assert vm.begin(BOTH) == Fence((SYNC, AGENT), 40, 40, 10)
    vm.end(BOTH)
    assert vm.begin(step_of(LONG)) == Fence((SYNC,), 60, 60, 10)
    assert vm.begin(GUEST) == Fence((AGENT,), 60, 70, 10)


def test_two_grants_of_one_commit_leave_each_other_good(vm: History) -> None:
    """libvirt's trace 2113."""
    vm.begin(ticket("first", job=Job.DESTROY))
    for one in (ticket("abort", job=Job.ABORT), LONG):
        vm.commit(vm.record.request(one, wall=0.0)[1])
    vm.end(ticket("first"))
    sync, long = (fence_of(vm.record, name) for name in ("abort", "long"))
    assert (sync, long) == (Fence((SYNC,), 40, 40, 40), Fence((ASYNC,), 40, 40, 40))
    assert sync.passed(long.floors) is None is long.passed(sync.floors)


def test_an_adoption_voids_the_owner_and_its_steps(vm: History) -> None:
    owner, step = vm.begin(KEPT), vm.begin(step_of(KEPT))
    vm.commit(vm.record.evict(["s"], wall=0.0))
    heir = vm.adopt(HEIR)
    assert heir == Fence((ASYNC,), 40, 40, 40)
    assert (owner.passed(heir.floors), step.passed(heir.floors)) == (ASYNC, SYNC)


def test_an_adoption_leaves_a_step_that_is_under_way(vm: History) -> None:
    owner, step = vm.begin(LONG), vm.begin(step_of(LONG))
    vm.commit(detach(vm.record, LONG.id, wall=0.0) or vm.record)
    heir = vm.adopt(HEIR)
    assert heir == Fence((ASYNC,), 20, 40, 40)
    assert (owner.passed(heir.floors), step.passed(heir.floors)) == (ASYNC, None)


def test_an_async_job_that_was_left_is_nobodys(vm: History) -> None:
    vm.begin(KEPT)
    vm.commit(vm.record.evict(["s"], wall=0.0))
    assert vm.begin(ticket("q", "other", job=Job.QUERY)) == Fence((SYNC,), 30, 30, 30)


def test_a_later_record_is_as_good(vm: History) -> None:
    vm.begin(LONG)
    vm.begin(QUERY)
    vm.end(LONG)
    assert fence_of(vm.record, QUERY.id) == Fence((SYNC,), 20, 20, 20)
    vm.begin(GUEST)
    assert fence_of(vm.record, QUERY.id) == Fence((SYNC,), 20, 40, 20)


# -- as one word ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fence", "word"),
    [
        (Fence((SYNC,), 12, 12, 10), "sync:sync=12,agent=12,async=10"),
        (Fence((SYNC, AGENT), 7, 7, MAX_TOKEN), f"sync+agent:sync=7,agent=7,async={MAX_TOKEN}"),
        (Fence((AGENT, ASYNC), 1, 3, 3), "agent+async:sync=1,agent=3,async=3"),
    ],
)
def test_it_is_a_word(fence: Fence, word: str) -> None:
    assert str(fence) == word
    assert Fence.parse(word) == fence
    assert pickle.loads(pickle.dumps(fence)) == copy.deepcopy(fence) == fence
    assert word.isprintable()
    assert not set(word) & set(" \t\"'\\$`&|;<>()*?[]{}~!#"), "a shell would see more in it"


@pytest.mark.parametrize(
    "word",
    [
        *("", "12", "sync", "sync:12", "sync:sync=1,agent=1", "sync:sync=1,agent=1,async=x"),
        *("sync:sync=1,agent=1,async=1 ", "sync:sync=1,agent=1,async=1\n", "x" * 10**6),
        *("sync:sync=0,agent=1,async=1", "sync:sync=-1,agent=1,async=1"),
        *("sync:agent=1,sync=1,async=1", f"sync:sync={MAX_TOKEN + 1},agent=1,async=1"),
        *("sync:sync=1,agent=1,async=" + "9" * 5000, "sync:sync=1,agent=1,async=١"),
        *(
            "disk:sync=1,agent=1,async=1",
            "+:sync=1,agent=1,async=1",
            "sync+:sync=1,agent=1,async=1",
        ),
        *("sync+sync:sync=1,agent=1,async=1", "agent+sync:sync=1,agent=1,async=1"),
        *("sync+agent:sync=1,agent=2,async=1", "SYNC:sync=1,agent=1,async=1"),
    ],
    ids=lambda word: word[:40],
)
def test_what_is_no_fence(word: str) -> None:
    with pytest.raises(BadRequest) as caught:
        Fence.parse(word)
    assert len(str(caught.value)) < 400
    assert "fence" in str(caught.value) or "token" in str(caught.value)


@pytest.mark.parametrize("own", [(), ("sync",), (AGENT, SYNC), (SYNC, SYNC), (None,)])
def test_what_is_of_no_slot(own: object) -> None:
    with pytest.raises(BadRequest, match="one Slot or more"):
        Fence(own, 1, 1, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "token", [0, -1, MAX_TOKEN + 1, pytest.param(10**5000, id="huge"), True, 1.0, "1", None]
)
def test_what_is_no_token(token: object) -> None:
    with pytest.raises(BadRequest, match="2\\*\\*63-1"):
        Fence((SYNC,), 1, 1, token)  # type: ignore[arg-type]


# -- over random histories ------------------------------------------------------------------------

SESSIONS = ("a", "b", "c")
JOBS = st.sampled_from([Job.QUERY, Job.MODIFY, Job.ABORT, Job.ASYNC, None])
MOVES = st.one_of(
    st.tuples(st.just("begin"), st.sampled_from(SESSIONS), JOBS, st.booleans()),
    st.tuples(st.just("step"), st.integers(0, 3)),
    st.tuples(st.just("end"), st.integers(0, 3)),
    st.tuples(st.just("die"), st.sampled_from(SESSIONS)),
    st.tuples(st.sampled_from(["detach", "adopt", "discard"])),
    st.tuples(st.just("write"), st.integers(0, 9)),
)


class Random(History):
    """Holders, living and past, that write to one resource in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self.fences: dict[str, Fence] = {}
        self.beside: dict[str, set[str]] = {}
        """Per grant, whose jobs went on when it was made."""
        self.marks: dict[Slot, int] = {}
        self.wrote: list[str] = []

    def commit(self, record: JobRecord) -> None:
        if record == self.record:
            return
        super().commit(record)
        for holder in self.record.owners():
            name = holder.ticket.id
            if holder.token == self.version:
                self.fences[name] = fence_of(self.record, name)
                self.beside[name] = self.owners()
            else:  # made of a later record, it says no less
                later, first = fence_of(self.record, name).floors, self.fences[name].floors
                assert all(later[slot] >= first[slot] for slot in Slot)

    def owners(self) -> set[str]:
        return {holder.ticket.id for holder in self.record.owners()}

    def named(self, session: str, **what: object) -> Ticket:
        self.count += 1
        return ticket(f"t{self.count}", session, **what)

    def play(self, what: str, *how: object) -> None:
        running = self.record.async_
        match what, *how:
            case "begin", str(session), job, bool(agent):
                kind = (
                    {"kind": OUT, "on_owner_loss": OnOwnerLoss.ORPHAN} if job is Job.ASYNC else {}
                )
                agent = agent and job is not Job.ASYNC  # begin_async asks for no agent
                guest = AgentJob.MODIFY if agent or job is None else None
                one = self.named(session, job=job, agent=guest, **kind)
                self.commit(self.record.request(one, wall=0.0)[1])
            case "step", int() if running and not running.owner_gone:
                parent = running.ticket
                step = {"job": Job.ASYNC_NESTED, "kind": OUT, "parent": parent.id}
                one = self.named(parent.session, **step)
                self.commit(self.record.request(one, wall=0.0)[1])
            case "end", int(which) if owners := sorted(self.owners()):
                self.commit(self.record.end(owners[which % len(owners)], wall=0.0))
            case "die", str(session):
                self.commit(self.record.evict([session], wall=0.0))
            case ("detach",) if running and not running.owner_gone:
                self.commit(detach(self.record, running.ticket.id, wall=0.0) or self.record)
            case ("adopt",) if running and running.owner_gone:
                heir = self.named("c", job=Job.ASYNC, kind=OUT)
                self.commit(adopt(self.record, heir)[1])
            case ("discard",) if running:
                self.commit(self.record.remove([running.ticket.id], wall=0.0))
            case "write", int(which) if self.fences:
                self.write(sorted(self.fences)[which % len(self.fences)])

    def write(self, name: str) -> None:
        fence = self.fences[name]
        void = [one for one in self.wrote if self.newer(one, name) and name not in self.beside[one]]
        refused = fence.passed(self.marks) is not None
        if name in self.owners():
            assert not refused, f"{name} holds its job, and {fence} was refused"
        if void:
            assert refused, f"{name} was void to {void}, and {fence} was let in"
        if not refused:
            self.marks = {s: max(t, self.marks.get(s, 0)) for s, t in fence.floors.items()}
            self.wrote.append(name)

    def newer(self, one: str, other: str) -> bool:
        return self.fences[one].token > self.fences[other].token


@settings(max_examples=1000)
@given(st.lists(MOVES, max_size=40))
def test_the_void_are_refused_and_the_holders_never(moves: list[tuple[object, ...]]) -> None:
    vm = Random()
    for move in moves:
        vm.play(*move)  # type: ignore[arg-type]
    for name in (*vm.owners(), *vm.fences):
        vm.write(name)
