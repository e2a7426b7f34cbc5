"""What a client tells of its jobs: `events.py` says what and how; two that listen are ready-made.

logs.py         `LogHook`: each event as a line of the standard log
metrics.py      `Metrics`: counters and gauges for Prometheus (extra ``metrics``)
"""

from distjob.hooks.events import (
    Begun,
    Blocker,
    Ended,
    Event,
    Evicted,
    Fate,
    GaveUp,
    Hook,
    How,
    JobEvent,
    Lost,
    Refused,
    RenewalFailed,
    Renewed,
    SessionEvent,
    SessionLost,
    SessionOpened,
    StoreFailed,
    TimedOut,
    Waiting,
)

__all__ = [
    "Begun",
    "Blocker",
    "Ended",
    "Event",
    "Evicted",
    "Fate",
    "GaveUp",
    "Hook",
    "How",
    "JobEvent",
    "Lost",
    "Refused",
    "RenewalFailed",
    "Renewed",
    "SessionEvent",
    "SessionLost",
    "SessionOpened",
    "StoreFailed",
    "TimedOut",
    "Waiting",
]
