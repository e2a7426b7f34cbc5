"""tooz on distjob: locks for programs that know tooz, as drivers ``distjob+redis`` and so on.

    coordinator = tooz.coordination.get_coordinator("distjob+redis://localhost", b"host-1")

    driver.py   the coordinators, one for each store: started, stopped, what they promise
    lock.py     a lock: the job "modify" of the VM that bears its name
    naming.py   a lock's name as a VM's; a coordinator's URL and options as settings

Groups, leaders and partitions are not offered. Needs the extra ``tooz``.
"""

from distjob.tooz.driver import EtcdDriver, RedisDriver, SqliteDriver, ZooKeeperDriver
from distjob.tooz.lock import Lock

__all__ = ["EtcdDriver", "Lock", "RedisDriver", "SqliteDriver", "ZooKeeperDriver"]
