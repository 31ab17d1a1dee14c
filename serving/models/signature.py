"""Whether the files of a bundle have changed, without reading them."""

from __future__ import annotations

from pathlib import Path

# The files of a bundle: name, inode, size, mtime and ctime of each, in ns. A copy may keep size and mtime.
Signature = tuple[tuple[str, int, int, int, int], ...]


def signature(path: Path) -> Signature:
    """The signature of the bundle in `path`; raises OSError."""
    # lstat: a link may have no target.
    stats = sorted((file.name, file.lstat()) for file in path.iterdir())
    return tuple(
        (name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
        for name, stat in stats
    )
