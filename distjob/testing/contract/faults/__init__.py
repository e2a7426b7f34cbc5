"""The bad days that every store must survive: each sentence once, as a test in both worlds.

class TestMyStoresFaults(FaultContract):
    @pytest.fixture
    def harness(self, my_server):
        return MyHarness(my_server)

harness.py    what the author of a store writes: where a server is, and how to hurt it
base.py       the fixtures, and steps that the tests share
replies.py late.py listening.py servers.py cancelled.py forks.py    the tests, by subject
proxy.py      loses what it is told to lose; knows no protocol
"""

from __future__ import annotations

from distjob.testing.contract.faults.cancelled import Cancelled
from distjob.testing.contract.faults.forks import Forks
from distjob.testing.contract.faults.harness import At, Harness, Secured
from distjob.testing.contract.faults.late import Late
from distjob.testing.contract.faults.listening import Listens
from distjob.testing.contract.faults.proxy import Proxy
from distjob.testing.contract.faults.replies import Replies
from distjob.testing.contract.faults.servers import Servers

__all__ = ["At", "FaultContract", "Harness", "Proxy", "Secured"]


class FaultContract(Replies, Late, Listens, Servers, Cancelled, Forks):
    """Subclass it, override `harness`, and let pytest collect the subclass."""
