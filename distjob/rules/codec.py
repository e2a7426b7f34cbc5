"""A record as bytes: ``distjob/<format> <crc32> <JSON>``, readable by people.

The format number stands before everything that may change with it, and the checksum is of the
JSON. Bytes that are not exactly what some distjob wrote are refused: never a grant on a guess.
"""

from __future__ import annotations

import zlib

import msgspec

from distjob.errors import RecordError
from distjob.rules.jobs import PLAIN_JOBS, Job
from distjob.rules.record import LONGEST_LINE, JobRecord

FORMAT = 1
_MAGIC = b"distjob/"
_PLAIN = frozenset(PLAIN_JOBS)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(JobRecord)


def encode(record: JobRecord) -> bytes | None:
    """The value to store; None for an idle VM, which has none."""
    if record.idle:
        return None
    body = _encoder.encode(record)
    return b"distjob/%d %08x %b" % (FORMAT, zlib.crc32(body), body)


def decode(vm: str, version: int, value: bytes | None) -> JobRecord:
    """The record that is the value of ``version``, every token filled in.

    Raises RecordError, naming ``vm``, for bytes of a newer format or of none.
    """
    if value is None:
        return JobRecord()
    magic, _, rest = value.partition(b" ")
    number = magic.removeprefix(_MAGIC)
    if not magic.startswith(_MAGIC) or not number.isdigit():
        raise _broken(vm, "it does not begin with 'distjob/'")
    if int(number[:9]) != FORMAT:
        raise RecordError(
            f"VM {vm!r}: its record has format {int(number[:9])}, this distjob reads format"
            f" {FORMAT}: run one version on all controllers"
        )
    crc, _, body = rest.partition(b" ")
    if crc != b"%08x" % zlib.crc32(body):
        raise _broken(vm, "its checksum is wrong")
    try:
        record = _decoder.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        # Of Python's own: bytes that are no UTF-8, an integer of too many digits, deep nesting.
        raise _broken(vm, str(error)) from error
    if flaw := _flaw(record, version):
        raise _broken(vm, flaw)
    return record.at(version)


def _flaw(record: JobRecord, version: int) -> str:
    """What no sequence of rules could have made."""
    if record.sync and record.sync.ticket.job in (None, Job.ASYNC):
        return "the sync slot holds no sync job"
    if record.agent and record.agent.ticket.agent is None:
        return "the agent slot holds no agent job"
    if record.async_ and (
        record.async_.ticket.job is not Job.ASYNC or record.async_.ticket.kind is None
    ):
        return "the async slot holds no async job"
    if record.async_ and not _PLAIN.issuperset(record.async_.mask):
        return "a mask lets in what is never masked in"
    if any(not 0 <= holder.token <= version for _, holder in record.holders()):
        return "a token is larger than the record's version"
    if len(record.queue) > LONGEST_LINE:
        return f"more than {LONGEST_LINE} wait"
    waiting = [ticket.id for ticket in record.queue]
    if len({*waiting}) < len(waiting) or any(record.holder_of(ticket_id) for ticket_id in waiting):
        return "a ticket stands in it twice"
    return ""


def _broken(vm: str, why: str) -> RecordError:
    return RecordError(
        f"VM {vm!r}: the store holds a broken record ({why}). Nothing is granted on it: find out"
        " who else writes to this namespace; once the VM has no job under way, delete its record"
    )
