"""``distjob run``: a command that runs only while a job is held.

command.py      the subcommand
supervise.py    the lease, the command, and what becomes of one when the other ends
warden.py       the process that ends the command when distjob itself can't any more
"""
