"""What distjob is tested with, for authors of backends and of controllers, too.

    contract/     StoreContract: the pytest suite that every backend must pass (needs pytest)
    replay.py     libvirt's recorded traces, played through the client on any store
    bench/        what it costs on Redis, etcd and ZooKeeper, as ratios
    memory.py     MemoryServer, MemoryStore: the smallest store that passes it
    inprocess.py  ``backend: memory``, for the tests of programs that use distjob
    steps.py      the back room of stores in virtual time
    onloop.py     an asyncio store or client, used from threads: blocking tests run on asyncio, too
    world.py      simulated worlds: the protocol in virtual time, under faults drawn by seed

A simulated world is made of:

    machine.py profiles.py                 a controller's host; which faults there are
    users.py workers.py longjobs.py        what users do, also with async jobs
    calls.py                               what they asked for and were told
    faults.py disasters.py mishaps.py      what goes wrong: on the way, everywhere, to one of them
    request.py                             one request, on its way to the store and back
    resource.py                            what the jobs guard
    plain.py                               the rules once more, as judge
    invariants.py commits.py longwatch.py  what must hold: always, at a commit, of async jobs,
    forcewatch.py overdue.py aftermath.py  of what is taken by force, of who waits, in the end

Nothing here is imported by `distjob` itself.
"""
