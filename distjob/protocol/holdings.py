"""What a client holds: who must be told when a job of it is lost, taken away or asked to abort.

Plain state of the controller's, changed in the same atomic steps. It keeps what is to be called and
told until the drivers do it; it knows nothing of stores, nor of how jobs are begun and ended.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from distjob.hooks import Event, Evicted, Fate, How, Lost
from distjob.protocol.effects import Clock, Signal
from distjob.protocol.parts import HeldJob
from distjob.rules.record import JobRecord
from distjob.rules.ticket import Ticket
from distjob.rules.words import job_name


class Holdings:
    """The jobs that the present session holds."""

    def __init__(self, clock: Clock, stir: Signal, due: Signal, *, hooked: bool) -> None:
        self._clock = clock
        self._stir = stir
        self.due = due
        """Set when callbacks are to be called."""
        self.by_vm: dict[str, dict[str, HeldJob]] = {}
        """By VM and ticket."""
        self.long = 0
        """How many async jobs are among them."""
        self.suspects: set[str] = set()
        """VMs to be read: something held there may have been taken away, or is to abort."""
        self.unsaid: set[HeldJob] = set()
        """Async jobs with progress that is to be written."""
        self.calls: list[Callable[[], None]] = []
        """The users' callbacks that are due."""
        self.hooked = hooked
        self.told: list[Event] = []
        """What hooks have not been told yet."""

    def keep(self, held: HeldJob) -> None:
        """Watch this granted job for its loss and for requests to abort."""
        self.by_vm.setdefault(held.vm, {})[held.ticket.id] = held
        if held.long:
            self.long += 1
            self._stir.set()  # somebody must listen for who wants it to abort

    def part(self, held: HeldJob) -> None:
        """Watch this job no more: its holder ends it."""
        if self._remove(held):
            held.callbacks = ()
            held.stir()

    def being_ended(self) -> list[HeldJob]:
        """Those whose end has begun, and was not answered yet."""
        return [held for here in self.by_vm.values() for held in here.values() if held.ended]

    def take_away(self, held: HeldJob) -> None:
        """Tell of a job that somebody has ended by force, though the session lives."""
        if self._remove(held):
            held.taken = True
            self.fall(held, "it was taken away by force", "force")

    def lose_all(self, why: str, how: How) -> None:
        """Tell of all jobs that the session has ended. Whoever is ending one says how that went."""
        lost = [held for here in self.by_vm.values() for held in here.values()]
        self.by_vm.clear()
        self.suspects.clear()
        self.unsaid.clear()
        self.long = 0
        for held in lost:
            if held.ended:
                held.stir()
            else:
                self.fall(held, why, how)

    def judge(self, vm: str, record: JobRecord, version: int) -> None:
        """What the record of ``version`` means for what is held here."""
        for held in list(self.by_vm.get(vm, {}).values()):
            if held.token >= version or held.ended:
                continue  # it says nothing of so young a job
            if record.holder_of(held.ticket.id) is None:
                self.take_away(held)
            elif held.abort is None and (owned := record.owned(held.ticket.id)) and owned.abort:
                held.abort = owned.abort
                self.calls += (partial(call, owned.abort) for call in held.on_abort)
                held.stir()
                self.due.set()

    def suspect(self, vm: str) -> None:
        """Let the hands read what became of what is held there."""
        if vm in self.by_vm:
            self.suspects.add(vm)
            self._stir.set()

    def suspect_all(self) -> None:
        """What was to be told may be lost: that a job was taken by force, or is to abort."""
        for vm in self.by_vm:
            self.suspect(vm)

    def tell(self, event: Event) -> None:
        """For the hooks, or the log, after this step."""
        if self.hooked or event.grave:
            self.told.append(event)

    def tell_evicted(self, vm: str, ticket: Ticket, since: float, token: int, how: Fate) -> None:
        """Another's job was taken out, or orphaned; ``token`` is 0 if it waited."""
        seconds = max(0.0, self._clock.wall() - since)
        self.tell(
            Evicted(
                vm=vm,
                job=job_name(ticket),
                token=token,
                ticket=ticket.id,
                owner=ticket.owner,
                seconds=seconds,
                how=how,
            )
        )

    def _remove(self, held: HeldJob) -> bool:
        here = self.by_vm.get(held.vm, {})
        if here.pop(held.ticket.id, None) is None:
            return False
        if not here:
            del self.by_vm[held.vm]
            self.suspects.discard(held.vm)
        if held.long:
            self.long -= 1
            self.unsaid.discard(held)
        return True

    def fall(self, held: HeldJob, why: str, how: How) -> None:
        """Tell of the loss of this job, once."""
        if held.fallen:
            return
        held.fallen = True
        self.calls += held.callbacks
        held.callbacks = ()
        held.stir()
        self.due.set()
        job, seconds = job_name(held.ticket), self._clock.monotonic() - held.begun
        about = {"vm": held.vm, "job": job, "ticket": held.ticket.id}
        self.tell(Lost(**about, token=held.token, held=seconds, how=how, why=why))
