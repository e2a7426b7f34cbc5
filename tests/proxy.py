"""The proxy of the fault contract, by a short name."""

from distjob.testing.contract.faults.proxy import Proxy

__all__ = ["Proxy"]
