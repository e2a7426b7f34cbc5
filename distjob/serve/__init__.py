"""``distjob serve``: all jobs of a namespace in the browser, as JSON, and for Prometheus.

watcher.py picture.py    the one client that looks, for all browsers; what it saw, what has changed
app.py guarded.py        what is answered at which address; what every answer carries
writes.py people.py      what somebody with a token may change; whose token it is
exposition.py server.py  what Prometheus is told; listening, and coming to an end
page/                    what runs in the browser

Needs the extra ``web``: starlette and uvicorn, which no other part of distjob imports.
"""
