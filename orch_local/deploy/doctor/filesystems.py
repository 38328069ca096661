"""Kinds of file systems by what they promise: are renames atomic, does a written file survive."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

LOCAL = frozenset("bcachefs btrfs ext2 ext3 ext4 f2fs jfs nilfs2 reiserfs xfs zfs".split())
SHARED = frozenset("beegfs ceph gfs2 glusterfs gpfs lustre nfs nfs4 ocfs2 orangefs panfs wekafs".split())
MEMORY = frozenset({"tmpfs", "ramfs"})
OVERLAY = frozenset({"overlay", "aufs"})
READ_ONLY = frozenset({"squashfs", "iso9660", "cramfs", "erofs", "udf"})
DOUBTFUL = {
    "fuse.sshfs": "a rename over a file may not be atomic, and locks hold on one machine only",
    "fuse.s3fs": "a rename is a copy, and nothing is atomic",
    "fuse.goofys": "a rename is a copy, and nothing is atomic",
    "fuse.gcsfuse": "a rename is a copy, and nothing is atomic",
    "fuse.rclone": "files are written back later, and a rename may be a copy",
    "fuse.mount-s3": "files cannot be renamed",
    "vfat": "a rename is not atomic, and names lose their case",
    "exfat": "a rename is not atomic",
    "msdos": "a rename is not atomic, and names are cut",
    "9p": "renames and locks are as good as the host behind it",
    "virtiofs": "renames and locks are as good as the host behind it",
    "cifs": "a rename over an open file fails, and locks are the server's",
    "smb3": "a rename over an open file fails, and locks are the server's",
    "afs": "what is written is kept only when the file is closed, and may be lost then",
}
"""What may go wrong, by kind."""


class Mount(NamedTuple):
    """What a path lies on."""

    kind: str
    point: str
    options: frozenset[str]


def mounts(mountinfo: str) -> list[Mount]:
    """The mounts that `/proc/self/mountinfo` lists; see proc_pid_mountinfo(5)."""
    found = []
    for line in mountinfo.splitlines():
        left, dash, right = line.partition(" - ")
        head, tail = left.split(" "), right.split(" ")
        if not dash or len(head) < 6 or len(tail) < 3:
            continue
        options = frozenset([*head[5].split(","), *tail[2].split(",")])
        found.append(Mount(tail[0], _unescaped(head[4]), options))
    return found


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def mount_of(path: Path, known: list[Mount]) -> Mount | None:
    """The mount that an absolute path lies on: the longest, and of several the last one made."""
    text = os.path.realpath(path)
    best = None
    for mount in known:
        point = mount.point.rstrip("/") + "/"
        inside = (text.rstrip("/") + "/").startswith(point)
        if inside and (best is None or len(point) >= len(best.point.rstrip("/") + "/")):
            best = mount
    return best


def doubt(mount: Mount, *, lasting: bool) -> str:
    """Why a file system is not one to rely on; empty where it is.

    ``lasting`` is for what must be there tomorrow.
    """
    kind = mount.kind
    if kind in READ_ONLY:
        return "it can only be read"
    if kind in MEMORY:
        return "it is gone at the next start, and takes memory of the models" if lasting else ""
    if kind in OVERLAY:
        return "it is the container's own layer, and gone with the container" if lasting else ""
    if kind in DOUBTFUL:
        return DOUBTFUL[kind]
    if kind.startswith("fuse") or kind == "ntfs" or kind == "ntfs3":
        return "it is not known whether its renames are atomic"
    if kind in SHARED:
        return (
            "mounted `soft`: a write may be lost when the server is slow" if "soft" in mount.options else ""
        )
    return "" if kind in LOCAL else "this kind was never tried"
