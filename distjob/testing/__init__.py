"""What distjob is tested with, for authors of backends and of controllers, too.

    contract/     StoreContract: the pytest suite that every backend must pass (needs pytest)
    replay.py     libvirt's recorded traces, played through the client on any store
    bench.py      what it costs on Redis, as ratios
    memory.py     MemoryServer, MemoryStore: the smallest store that passes it
    world.py      simulated worlds: the protocol in virtual time, under faults drawn by seed

Nothing here is imported by `distjob` itself.
"""
