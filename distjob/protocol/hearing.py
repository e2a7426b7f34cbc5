"""What the store sends by itself, to the session of a client: whom of it each message concerns.

Messages are hints: what one says is checked by the next commit, and one that is lost costs time.
"""

from __future__ import annotations

from distjob.errors import RecordError
from distjob.protocol.parts import IDLE, View
from distjob.protocol.state import ClientState
from distjob.rules.codec import decode
from distjob.rules.line import watched
from distjob.store import ABSENT, Ended, Event, Missed, Woken


def hear(me: ClientState, event: Event) -> None:
    """Let those look for whom this message may have news."""
    match event:
        case Woken(vm, version, value):
            _woken(me, vm, version, value)
        case Ended(session):
            for vm, here in me.waiters.items():
                record = me.views.get(vm, IDLE).record
                for ticket_id, waiter in here.items():
                    if record.waits(ticket_id) and session in watched(record, ticket_id):
                        waiter.doubt()
        case Missed():
            for vm, here in me.waiters.items():
                me.look_again(vm)
                for waiter in here.values():
                    waiter.doubt()  # an `Ended` may be lost, too
            me.holdings.suspect_all()


def _woken(me: ClientState, vm: str, version: int, value: bytes | None) -> None:
    if vm in me.turns:
        me.early[vm] = version
    known = vm in me.waiters or vm in me.views
    news = version > me.out_at.get(vm, ABSENT)
    try:
        if value is not None and (known or news):
            me.saw(vm, View(version, decode(vm, version, value)))
            return
    except RecordError:
        pass  # whoever waits reads it again, and raises
    if vm not in me.views or me.views[vm].version < version:
        me.look_again(vm)
        me.holdings.suspect(vm, seen=known or not news)
