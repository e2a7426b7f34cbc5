"""Which file system a folder is on, as the kernel names it, and on which a file can't be shared."""

from __future__ import annotations

import os
from pathlib import Path

NETWORK = frozenset(
    (
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "coda", "9p"),
        *("virtiofs", "vboxsf", "vmhgfs", "fuse.vmhgfs-fuse", "prl_fs"),  # the hypervisor's folders
        *("lustre", "gfs", "gfs2", "ocfs2", "gpfs", "beegfs", "fhgfs", "orangefs", "pvfs2"),
        *("panfs", "wekafs", "ceph", "fuse.ceph", "fuse.ceph-fuse", "fuse.glusterfs"),
        *("fuse.sshfs", "fuse.s3fs", "fuse.rclone", "fuse.juicefs", "fuse.JuiceFS", "fuse.mfs"),
    )
)
"""Shared by hosts: SQLite's WAL needs memory that all who use the file have in common."""
IN_MEMORY = frozenset(("tmpfs", "ramfs"))
"""Empty after a reboot."""


def filesystems(folder: Path) -> set[str]:
    """The types that ``folder``'s device is mounted as. Raises OSError."""
    device = folder.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = Path("/proc/self/mountinfo").read_text(errors="replace").splitlines()
    return {line.partition(" - ")[2].split()[0] for line in lines if line.split()[2] == number}
