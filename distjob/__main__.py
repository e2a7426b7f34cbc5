"""``python -m distjob``: the command, as `distjob` on the path."""

from distjob.cli import main

main()
