"""The protocol, sans IO: every operation a generator of effects, written once for all drivers.

effects.py     what it may ask of the world
controller.py  one client's state
change.py      the compare-and-set that every change goes through
begin.py       begin, and waiting in line
held.py        end, set the mask
keeper.py      the session: renewal, messages, loss, tidying, closing
look.py        status and list, without a job
"""
