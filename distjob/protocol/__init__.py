"""Every operation of a client as a generator of effects: it does no IO and knows no driver.

effects.py      what may be asked of the world
state.py        the state that a client's operations share; parts.py: what it is made of
holdings.py     what is held, and who must be told of it
change.py tries.py    the loop that every change of a record goes through; what follows if it fails
begin.py waiting.py   asking for a job, and waiting in line
held.py owner.py      what a holder, and an async job's owner, does with it
outside.py look.py    what may be done to others' jobs; looking without a job
heart.py hands.py     renewal; what else is done in the background
hearing.py      what the store sends by itself; turns.py: operations of one client don't collide
refusing.py     what is said of a begin that is not granted
closing.py      the end of a client
"""
