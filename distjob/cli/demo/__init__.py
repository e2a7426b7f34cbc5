"""``distjob demo``: what happens when controllers compete, die or sleep.

command.py      the subcommand, and what it shows
stage.py        the controllers as processes, and what is done to them
controller.py   one of them
"""
