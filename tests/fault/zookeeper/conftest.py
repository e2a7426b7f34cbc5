"""Makes the fixtures of `zookeeper_stores` known to the tests of this folder."""

from __future__ import annotations

from zookeeper_stores import admin, hosts, layout, no_thread_left, opened, proxy, through

__all__ = ["admin", "hosts", "layout", "no_thread_left", "opened", "proxy", "through"]
