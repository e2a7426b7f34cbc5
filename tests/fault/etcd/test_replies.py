"""A session whose reply was lost leaves no lease. In threads and on asyncio."""

from __future__ import annotations

import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from distjob.store import Store
from on_etcd import failed
from proxy import Proxy
from servers import EtcdNode, wait_for


@pytest.mark.parametrize("holding", [b"/owner/", b"\x08\x02\x10"])
def test_a_session_whose_reply_was_lost_leaves_nothing(
    through: Store, proxy: Proxy, etcd_server: EtcdNode, holding: bytes
) -> None:
    def leases() -> set[str]:
        return set(re.findall(r"[0-9a-f]{14,16}", etcd_server.cli("lease", "list")))

    def granted() -> int:
        """How many it has ever granted."""
        with urllib.request.urlopen(f"http://{etcd_server.address}/metrics", timeout=10) as page:
            text = page.read().decode()
        found = re.search(r"(?m)^etcd_debugging_lease_granted_total (\S+)$", text)
        assert found
        return round(float(found[1]))

    before, earlier = leases(), granted()
    proxy.swallow_replies(to=holding)
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(through.open_session, 2.0, "me")
        assert proxy.dropped.wait(10.0)
        wait_for(lambda: granted() == earlier + 1, "a lease")
        proxy.cut()
        assert failed(opening.result).unanswered
    wait_for(lambda: leases() <= before, "the lease to end")


# -- servers that are not there, or no servers --------------------------------------------------
