"""SHA-256 of files, as `sha256sum --check` reads them."""

from __future__ import annotations

import hashlib
from pathlib import Path


def write_checksums(folder: Path, name: str) -> Path:
    """Write the checksums of all files of a folder into a file of that folder, sorted by name."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != name)
    lines = []
    for path in files:
        with path.open("rb") as content:
            lines.append(f"{hashlib.file_digest(content, 'sha256').hexdigest()}  {path.name}\n")
    out = folder / name
    out.write_text("".join(lines), "utf-8")
    return out
