"""What a client tells of its jobs: `events.py` says what and how; some that listen are ready-made.

logs.py         `LogHook`: each event as a line of the standard log
metrics.py      `Metrics`: counters and gauges for Prometheus (extra ``metrics``)
otel.py         `Spans`: each wait and each hold as a span of OpenTelemetry (extra ``otel``)
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
