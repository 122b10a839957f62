"""A file system in memory that becomes a tar archive, the same to the byte for the same content."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path, PurePosixPath


class Tree:
    """Files and folders below `/`; the folders above them make themselves, and everything is root's unless told.

    Args:
        epoch_s: the time that everything gets.
    """

    def __init__(self, epoch_s: int) -> None:
        self._epoch_s = epoch_s
        self._entries: dict[str, tuple[tarfile.TarInfo, bytes]] = {}

    def add_folder(self, path: str, *, mode: int = 0o755, owner: int = 0) -> None:
        """Add an empty folder."""
        entry = self._entry(path, mode, owner)
        entry.type = tarfile.DIRTYPE

    def add_file(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Add a file."""
        entry = self._entry(path, mode, 0)
        entry.size = len(content)
        self._entries[entry.name] = (entry, content)

    def add_link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        entry = self._entry(path, 0o777, 0)
        entry.type, entry.linkname = tarfile.SYMTYPE, target

    def add_all(self, source: Path, path: str) -> None:
        """Add what lies below a folder of this machine; of its permissions only whether a file can be executed."""
        self.add_folder(path)
        for found in sorted(source.rglob("*")):
            inside = f"{path}/{found.relative_to(source)}"
            if found.is_symlink():
                self.add_link(inside, str(found.readlink()))
            elif found.is_dir():
                self.add_folder(inside)
            else:
                self.add_file(inside, found.read_bytes(), mode=0o755 if found.stat().st_mode & 0o100 else 0o644)

    def paths(self) -> list[str]:
        """All paths, without the `/` at their start."""
        return sorted(self._entries)

    def write(self, target: Path) -> None:
        """Write the archive; an older one of that name stays until the new one is complete."""
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f"{target.name}.new")
        with tarfile.open(unfinished, "w", format=tarfile.GNU_FORMAT) as archive:
            for _, (entry, content) in sorted(self._entries.items()):
                archive.addfile(entry, io.BytesIO(content) if entry.isreg() else None)
        unfinished.replace(target)

    def _entry(self, path: str, mode: int, owner: int) -> tarfile.TarInfo:
        name = str(PurePosixPath(path).relative_to("/"))
        above = str(PurePosixPath(path).parent)
        if above != "/" and above[1:] not in self._entries:
            self.add_folder(above)
        entry = tarfile.TarInfo(name)
        entry.mode, entry.mtime = mode, self._epoch_s
        entry.uid = entry.gid = owner
        self._entries[name] = (entry, b"")
        return entry
