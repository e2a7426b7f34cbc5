"""``distjob serve``: all jobs of a namespace in the browser, as JSON, and for Prometheus.

One client watches the store (watcher.py), whatever the number of browsers; what it saw last, and
what changed since, is picture.py's. Needs the extra ``web``: starlette and uvicorn, which only
app.py and server.py import.
"""
