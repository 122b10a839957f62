"""A tar.gz that is the same to the byte whenever it is made of the same files."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping
from pathlib import Path

PROGRAM_MODE = 0o755
FILE_MODE = 0o644


def write_archive(out: Path, members: Mapping[str, Path], *, programs: frozenset[str], epoch: int) -> Path:
    """Write files into an archive, below a folder of the archive's name.

    Args:
        out: the archive, which ends in `.tar.gz`.
        members: name inside the folder to file; the order does not matter.
        programs: the names that are executable.
        epoch: the time of every member, in seconds since 1970.
    """
    folder = out.name.removesuffix(".tar.gz")
    out.parent.mkdir(parents=True, exist_ok=True)
    # Neither the time nor the name of the file goes into the head of the gzip.
    with (
        out.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, compresslevel=9, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in sorted(members):
            content = members[name].read_bytes()
            # Nothing is taken from the file but its content: owner, mode and time are those of the machine that builds.
            about = tarfile.TarInfo(f"{folder}/{name}")
            about.size, about.mtime = len(content), epoch
            about.mode = PROGRAM_MODE if name in programs else FILE_MODE
            about.uid = about.gid = 0
            about.uname = about.gname = "root"
            archive.addfile(about, io.BytesIO(content))
    return out
