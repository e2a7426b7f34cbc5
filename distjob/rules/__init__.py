"""The rules, pure: no IO, time, thread or chance. Begin with `record.py`.

jobs.py         types of jobs, their slots, the masks
ticket.py       one request as it stands in a record
record.py       all jobs of one VM: who may start, who is let in, what the next record is
async_job.py    the life of an async job: phase, abort, detach, adopt
line.py         who waits watches whom, and whom a change wakes
fence.py        what a grant made void, for a guard at the resource
codec.py        a record as bytes
words.py        what a caller is told of who is in the way
shards.py       which of several stores has a VM
"""
