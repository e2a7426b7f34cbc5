"""What distjob costs on a store, as ratios that are taken beside yardsticks in the same run.

    python -m distjob.testing.bench --config distjob.yaml [--quick]
    python -m distjob.testing.bench --config distjob.yaml --players 40

The first, on Redis, etcd and ZooKeeper:

1. begin + end of an idle VM, against two bare writes of the same client library, and against
   acquire + release of that library's own lock.
2. hand-over: from the holder's end() to the return of the waiter's begin() in another process, in
   bare writes; and what the server was asked while the waiter waited.
3. 10,000 held jobs: threads, memory a lease, requests a TTL.

The second, on SQLite, too: processes that play for one VM, and how long the unluckiest waited.

An absolute time says something of the machine only; the ratios say something of distjob.

    measure.py    blocks, medians, lines
    parts.py      the three parts, on any store
    crowd.py      processes that play for one VM
    yardstick.py  what a yardstick is
    on_redis.py on_etcd.py on_zookeeper.py    the yardsticks
"""
