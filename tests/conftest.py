"""Makes the servers' and stores' fixtures known to every test; see `servers` and `stores`."""

from __future__ import annotations

pytest_plugins = ("servers", "stores")
