"""A file on one host that several processes share: the guard's marks, and the store SQLite.

sqlite.py       one SQLite file: opened, locked, busy, damaged
faults.py       why it can't be used
forks.py        what a fork leaves of an open file
filesystems.py  where a file can't be shared
"""
