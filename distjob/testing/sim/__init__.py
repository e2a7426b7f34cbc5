"""Simulated worlds: the real protocol in virtual time, under faults drawn by seed.

world.py                        a world, assembled and run
machine.py profiles.py          a controller's host; which faults there are
users.py workers.py longjobs.py what users do, also with async jobs
calls.py                        what they asked for and were told
faults.py disasters.py mishaps.py  what goes wrong: on the way, everywhere, to one of them
request.py steps.py             a request on its way to the store; the back room in virtual time
resource.py                     what the jobs guard
judges/                         what must hold
"""
