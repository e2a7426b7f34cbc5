"""What distjob is tested with, for authors of backends and of controllers, too.

    contract/     StoreContract: the pytest suite that every backend must pass (needs pytest)
    explore/      every schedule of a short script with a few deviations
    history/      what real processes were told, checked against the rules in sequence
    replay.py     libvirt's recorded traces, played through the client on any store
    bench/        what it costs on Redis, etcd and ZooKeeper, as ratios
    memory.py     MemoryServer, MemoryStore: the smallest store that passes it
    changed.py    the lock of a MemoryServer's users, and the bells of those who listen
    inprocess.py  ``backend: memory``, for the tests of programs that use distjob
    onloop.py     an asyncio store or client, used from threads: blocking tests run on asyncio, too
    sim/          simulated worlds: the protocol in virtual time, under faults drawn by seed

Nothing here is imported by `distjob` itself.
"""
