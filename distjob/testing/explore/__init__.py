"""The explorer: each schedule of a short script with at most D deviations from the usual one.

Worlds (`distjob.testing.sim.world`) meet rare interleavings by chance. The explorer meets all of
them, up to a number of deviations: it runs a script of a few users in its usual schedule, notes at
each step what else could have happened there, and runs the script again from its start for each.
What is real: the protocol's generators and the rules. The store is a model of one.

    python -m distjob.testing.explore                          # each script, one deviation
    python -m distjob.testing.explore --depth 2 --main         # the four main ones, two
    python -m distjob.testing.explore --script handover --plan "17 crash a"   # one schedule, told

    stage.py        controllers and their tasks, as the schedule drives them
    schedule.py     one run: time, and what is pending; deviations.py: what else may happen
    network.py      requests and wake-ups: the store's side of a run
    offers.py       what else could happen at a step
    search.py       all runs, and what is skipped
    ledger.py       what users were told; judges.py, aftermath.py: what must hold
    users.py scripts.py      what users do; the scripts

**What counts as a deviation**: at a step, a pending step is taken before one that it conflicts
with; time goes on to the next timer though steps are pending; a request is refused, lost, or its
reply is lost; a commit is made late, at any later moment at which it can still be made; an answer
is an error that nobody expects; a wake-up is lost, told as missed, or comes twice; an operation is
cancelled or dropped; a controller crashes, its requests under way arriving or not; a controller
stands still for longer than the TTL; the store loses all its data.

**What is skipped, and why that is sound**

- *Steps that touch nothing in common commute.* Taking one before the other is no deviation: the
  same is reached by the deviation at the first place where the two touch the same controller or
  the store.
- *What happens to one controller, or to the store, between two moments at which nothing touches
  it, happens at the first of them.* Nobody could see the difference.
- *A late commit that would change nothing* (stale, settled, of an ended session) is not made:
  nobody hears of it.
- *A state that was reached before, with as many deviations left, is not gone on from.* A state is
  what the store holds, what each task was told in which order and when, what is pending and which
  timers run; all that follows is a function of it. It is compared by a hash of 64 bits.
"""
