"""What all backends share; for authors of one. Begin with `source.py`.

source.py               what an author writes: `Source`, `Feed`, `Fault`
world.py                how it is waited: in threads.py, tasks.py; simulated: distjob.testing
opened.py               a source, opened: the store that a client uses; what a fault is to a caller
listening.py inbox.py   feeds kept open; what has come by them
settling.py             which commits were overtaken by a settling
life.py                 whether a store may be used
transport.py            what settings have in common: secrets, TLS files
"""
