"""Between a caller and the protocol: what may be asked, and who runs the protocol's generators.

blocking.py tasks.py    run a generator's effects: in threads, on an event loop
arguments.py choices.py what both clients are asked, checked; a job of one enum or of another
names.py                what names of VMs and texts may be
forgotten.py            clients that nobody closed
"""
