"""The protocol, sans IO: every operation a generator of effects, written once for all drivers.

effects.py     what it may ask of the world
controller.py  one client's state
change.py      the compare-and-set that every change goes through
begin.py       begin: asked for, granted, refused, withdrawn
waiting.py     waiting in line, and who listens
held.py        end, set the mask, be told of a loss
keeper.py      in the background: the session, its renewal and loss, tidying; and closing
look.py        status and list, without a job
"""
