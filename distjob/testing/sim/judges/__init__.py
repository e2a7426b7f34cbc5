"""What must hold in a simulated world.

plain.py                    the rules once more, written in the dumbest way, as judge
invariants.py commits.py    always; at a commit
longwatch.py forcewatch.py  of async jobs; of what is taken by force
overdue.py aftermath.py     of who waits; in the end
"""
