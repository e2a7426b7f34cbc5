"""A Redis Cluster: which node has a slot, and how a command gets there.

redis-py's own cluster client sends a command again after a lost reply. So this one asks the nodes
who has the slot, sends each command once, and follows redirections only, which say that nothing
was done. Knows no layout of keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.crc import key_slot

from distjob_redis.client.making import Maker
from distjob_redis.client.seeking import Sought
from distjob_redis.client.server import Command, Server
from distjob_redis.faults import Address, RedisFault, Why
from distjob_redis.settings import ClusterSettings, address

REDIRECTIONS = 5
"""So often one command may be sent on; two are usual while a slot moves."""


class Slot(Sought):
    """All keys are in one slot: that of ``prefix``, which holds what decides of it."""

    kind = "cluster"

    def __init__(
        self,
        maker: Maker,
        settings: ClusterSettings,
        prefix: bytes,
        known: dict[Address, Server] | None = None,
    ) -> None:
        super().__init__(maker.world, maker.data, {} if known is None else known)
        self._given = maker, settings
        self._seeds = [address(host, 6379) for host in settings.hosts]
        self._primaries: list[Server] = []
        self._suspects: set[Server] = set()
        """Servers that did not answer: they are asked last."""
        self.slot = key_slot(prefix)
        self.name = "cluster of " + ", ".join(f"{host}:{port}" for host, port in self._seeds)

    def beside(self, prefix: bytes) -> Slot:
        """Another slot, by the same connections. Not to be closed."""
        return Slot(*self._given, prefix, self._known)

    async def exchange(self, commands: Sequence[Command], *, change: bool = False) -> list[Any]:
        replies = await super().exchange(commands, change=change)
        for number, reply in enumerate(replies):
            if isinstance(reply, RedisFault) and reply.to:
                replies[number] = await self._followed(commands[number], reply, change=change)
        return replies

    async def servers(self) -> Sequence[Server]:
        """The primaries that have a slot."""
        await self._find(share=True)
        return self._primaries

    def doubt(self, server: Server) -> None:
        self._suspects.add(server)
        super().doubt(server)

    async def _followed(self, command: Command, reply: Any, *, change: bool) -> Any:
        """The reply to ``command`` from where ``reply`` redirects it to; or the fault."""
        for _ in range(REDIRECTIONS):
            if not isinstance(reply, RedisFault) or not reply.to:
                return reply
            there = self._at(reply.to)
            if reply.why is Why.MOVED:
                await self._take(there)
                sent: Sequence[Command] = (command,)
            else:  # the slot is on its way there: say that we know
                sent = (("ASKING",), command)
            try:
                reply = (await there.exchange(sent, change=change))[-1]
            except RedisFault as fault:
                if fault.why is Why.LOST:
                    self.doubt(there)
                return fault
        return RedisFault(f"Redis {self.name}: slot {self.slot} is sent from node to node")

    async def _seek(self) -> Server:
        """By the map of slots of the first node that answers."""
        order = dict.fromkeys([*self._primaries, *map(self._at, self._seeds)])
        failures: list[RedisFault] = []
        for server in sorted(order, key=lambda one: one in self._suspects):
            try:
                return self._found_in(await server.ask("CLUSTER", "SLOTS"), server)
            except RedisFault as fault:
                self._suspects.add(server)
                failures.append(fault)
        raise next((fault for fault in failures if fault.unfit), failures[0])

    def _found_in(self, slots: Sequence[Any], told_by: Server) -> Server:
        """The primary that has the slot, by the map of one node. Raises `RedisFault`."""
        self._suspects.discard(told_by)
        if not slots:
            msg = f"Redis at {told_by.name} is in a cluster without slots"
            raise RedisFault(msg, "create the cluster first", unfit=True)
        found: Server | None = None
        primaries = []
        for first, last, (host, port, *_), *_ in slots:
            told = host.decode() if host else ""
            primary = self._at((told_by.address[0] if told in ("", "?") else told, int(port)))
            primaries.append(primary)
            if first <= self.slot <= last:
                found = primary
        self._primaries = list(dict.fromkeys(primaries))
        if found is None:
            msg = f"Redis {self.name}: no node has slot {self.slot}"
            raise RedisFault(msg, "see redis-cli --cluster check")
        return found
