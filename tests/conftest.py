"""Makes known to every test what `ends`, `servers`, `stores` and `certificates` have."""

from __future__ import annotations

import pytest

pytest_plugins = ("certificates", "ends", "servers", "stores")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """gRPC's asyncio comes last: once it was used, a child that a test forks may crash."""
    items.sort(key=lambda item: "etcd" in item.nodeid and "aio" in _world(item))


def _world(item: pytest.Item) -> str:
    return item.nodeid.lower().replace("asyncio", "aio")
