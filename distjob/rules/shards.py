"""Which of several stores has a VM: each store is a shard, and fails alone."""

from __future__ import annotations

from hashlib import blake2b


def shard_of(vm: str, shards: int) -> int:
    """The number of the shard that has ``vm``, of so many; the same on every machine, for ever.

    Rendezvous hashing: each shard has a weight for each VM, and the heaviest has it. With one shard
    more each of the others gives up its share of VMs to that one, and no VM goes elsewhere.
    Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.
    """
    name = vm.encode()

    def weight(shard: int) -> bytes:
        return blake2b(name, digest_size=8, salt=shard.to_bytes(8, "big")).digest()

    return max(range(shards), key=weight) if shards > 1 else 0
