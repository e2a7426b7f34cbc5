"""The history checker: what real processes on a real store were told, against a model of the rules.

    player.py    one process: random operations on one VM, written down as they begin and end
    logs.py      what players have written, as operations of the model
    model.py     the rules for one VM in sequence, and the search for an order of a history
    __main__.py  starts players, kills and stops them, and checks what they have written

    python -m distjob.testing.history '{"sqlite": {"path": "jobs.db"}}' --seconds 600

The search is Wing and Gong's, with memo: an operation takes effect at one moment between its
call and its return; one whose outcome nobody knows, at some moment after its call or never.
"""
