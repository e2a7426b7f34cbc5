"""A daemon that is gone: nobody waits for what it would have told."""

from __future__ import annotations

import threading
from importlib import import_module

import pytest

from servers import Libvirtd, libvirt_here

pytestmark = pytest.mark.xdist_group("libvirt")


def test_a_job_that_nobody_can_be_asked_of_is_not_waited_for(libvirtd: Libvirtd) -> None:
    raw = libvirt_here().open(libvirtd.uri("test")).lookupByName("test")
    watch = import_module("distjob.libvirt.watch").Watch(raw, threading.Event())
    assert not watch.has_ended()  # the test driver can't tell
    libvirtd.stop()
    with pytest.raises(libvirt_here().libvirtError):
        watch.has_ended()
