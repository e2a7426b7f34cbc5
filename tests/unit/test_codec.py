"""Bytes in the store: what was written is read; anything else is refused, never guessed."""

import zlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distjob.errors import RecordError
from distjob.rules import codec
from distjob.rules.async_job import amend
from distjob.rules.codec import decode, encode
from distjob.rules.jobs import AgentJob, AsyncJob, Job, mask_of
from distjob.rules.record import LONGEST_LINE, JobRecord
from distjob.rules.ticket import Holder, Owner, Ticket

OWNER = Owner("ctl", "host", 7)


def ticket(number, **facts):
    return Ticket(
        id=f"s{number}.1",
        session=f"s{number}",
        owner=OWNER,
        api="API \U0001f512",
        asked=1.5,
        **facts,
    )


def full():
    record = JobRecord()
    wanted = [
        ticket(1, job=Job.ASYNC, kind=AsyncJob.SAVE),
        ticket(2, job=Job.QUERY, agent=AgentJob.MODIFY),
        ticket(3, job=Job.MODIFY),
        ticket(1, job=Job.MODIFY, agent=AgentJob.QUERY),
    ]
    for number, one in enumerate(wanted):
        one = msgspec.structs.replace(one, id=f"t{number}")  # noqa: PLW2901
        record = record.request(one, wall=2.25)[1]
    return amend(record, "t0", mask=mask_of([Job.QUERY]), wall=0.0)


VALUE = encode(full().at(5))


def test_what_was_written_is_read():
    assert decode("vm", 5, VALUE) == full().at(5)
    assert decode("vm", 9, encode(full())) == full().at(9)


def test_an_idle_vm_has_no_value():
    assert encode(JobRecord()) is None
    assert decode("vm", 0, None) == JobRecord()


def test_a_person_can_read_it():
    head, crc, body = VALUE.split(b" ", 2)
    assert head == b"distjob/1"
    assert len(crc) == 8
    assert msgspec.json.decode(body)["sync"]["ticket"]["job"] == "query"


def test_a_newer_format_is_named():
    with pytest.raises(RecordError, match=r"'vm-7'.*format 2, this distjob reads format 1"):
        decode("vm-7", 5, b"distjob/2 whatever it is")


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"null",
        b"\xff\xfe\x00",
        b"distjob/",
        b"distjob/x 0 {}",
        b"distjob/1",
        b"distjob/-1 0 {}",
        b"distjob/1 00000000 {}",
        b"distjob/" + b"9" * 5000 + b" 0 {}",
        "distjob/٣ 0 {}".encode(),
    ],
)
def test_garbage_is_refused(garbage):
    with pytest.raises(RecordError, match="'vm-7'"):
        decode("vm-7", 5, garbage)


@given(st.integers(0, len(VALUE) - 1), st.integers(1, 255))
def test_every_changed_byte_is_noticed(position, change):
    broken = bytearray(VALUE)
    broken[position] ^= change
    with pytest.raises(RecordError):
        decode("vm", 5, bytes(broken))


@given(st.integers(0, len(VALUE) - 1))
def test_every_cut_is_noticed(length):
    with pytest.raises(RecordError):
        decode("vm", 5, VALUE[:length])


@given(st.binary(max_size=60))
def test_random_bytes_are_refused(garbage):
    with pytest.raises(RecordError):
        decode("vm", 5, garbage)


def test_what_no_rules_could_make_is_refused():
    record = full().at(5)
    replace = msgspec.structs.replace
    impossible = {
        "larger than": record,  # read at an older version
        "no sync job": replace(record, sync=Holder(record.async_.ticket, 1.0)),
        "no agent job": replace(record, agent=Holder(record.async_.ticket, 1.0)),
        "no async job": replace(record, async_=replace(record.async_, ticket=record.queue[0])),
        "stands in it twice": replace(record, queue=(record.queue[0], record.queue[0])),
        "twice": replace(record, queue=(record.sync.ticket,)),
    }
    for why, flawed in impossible.items():
        with pytest.raises(RecordError, match=why):
            decode("vm", 4 if flawed is record else 5, encode(flawed))


def value_of(body):
    """Whatever it is, as a value with a right checksum."""
    return b"distjob/1 %08x %b" % (zlib.crc32(body), body)


@pytest.mark.parametrize("forged", ["async", "async nested"])
def test_a_mask_lets_in_no_second_async_job(forged):
    """Whoever can write to the store could have had one granted beside the first."""
    body = VALUE.split(b" ", 2)[2]
    broken = body.replace(b'"mask":["query"', b'"mask":["%b"' % forged.encode(), 1)
    assert broken != body
    with pytest.raises(RecordError, match=r"'vm-7'.*never masked in"):
        decode("vm-7", 5, value_of(broken))


OWN = b'{"controller":"ctl","host":"host","pid":7}'


@pytest.mark.parametrize(
    "said",
    [b'"progress":{"done":1.0,"x":%b}', b'"abort":{"by":' + OWN + b',"asked":1.0,"x":%b}'],
    ids=["progress", "abort"],
)
@pytest.mark.parametrize("depth", [0, 1, 100_000])
def test_unknown_fields_of_what_is_said_are_refused(said, depth):
    body = VALUE.split(b" ", 2)[2]
    more = said % (b"[" * depth + b"1" + b"]" * depth)
    forged = body.replace(b'"async":{', b'"async":{' + more + b",", 1)
    assert forged != body
    with pytest.raises(RecordError, match="unknown field `x`"):
        decode("vm", 5, value_of(forged))


@pytest.mark.parametrize("error", [RecursionError("too deep"), ValueError("too many digits")])
def test_whatever_reading_raises_is_told_of_the_record(monkeypatch, error):
    class Decoder:
        def decode(self, body):
            raise error

    monkeypatch.setattr(codec, "_decoder", Decoder())
    with pytest.raises(RecordError, match=f"'vm-7'.*{error}"):
        decode("vm-7", 5, VALUE)


def test_a_line_that_is_too_long_is_refused():
    line = tuple(ticket(number, job=Job.MODIFY) for number in range(LONGEST_LINE + 1))
    record = msgspec.structs.replace(full().at(5), queue=line)
    with pytest.raises(RecordError, match=f"'vm-7'.*more than {LONGEST_LINE} wait"):
        decode("vm-7", 5, encode(record))
    longest = msgspec.structs.replace(record, queue=line[1:])
    assert decode("vm-7", 5, encode(longest)) == longest


@pytest.mark.parametrize("change", [b'"slot":1,', b'"queue":7,', b'"sync":{},'])
def test_unknown_and_wrong_fields_are_refused(change):
    body = VALUE.split(b" ", 2)[2].replace(b"{", b"{" + change, 1)
    with pytest.raises(RecordError, match="broken record"):
        decode("vm", 5, b"distjob/1 %08x %b" % (zlib.crc32(body), body))
