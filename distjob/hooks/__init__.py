"""What a client tells of its jobs: `events.py` says what and how; two that listen are ready-made.

logs.py         `LogHook`: each event as a line of the standard log
metrics.py      `Metrics`: counters and gauges for Prometheus (extra ``metrics``)
"""

from distjob.hooks.events import (
    Begun,
    Ended,
    Event,
    Evicted,
    Fate,
    GaveUp,
    Hook,
    How,
    Lost,
    Refused,
    Renewed,
    TimedOut,
    Waiting,
)

__all__ = [
    "Begun",
    "Ended",
    "Event",
    "Evicted",
    "Fate",
    "GaveUp",
    "Hook",
    "How",
    "Lost",
    "Refused",
    "Renewed",
    "TimedOut",
    "Waiting",
]
