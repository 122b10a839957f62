"""SHA-256 of files, as `sha256sum --check` reads them."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from release.checksums import write_checksums


def test_checksums(tmp_path: Path) -> None:
    """Every file has its line, sorted by name, and the file of the checksums has none."""
    (tmp_path / "b").write_bytes(b"2")
    (tmp_path / "a").write_bytes(b"1")
    expected = "".join(f"{hashlib.sha256(text).hexdigest()}  {name}\n" for text, name in ((b"1", "a"), (b"2", "b")))
    for _ in range(2):
        assert write_checksums(tmp_path, "SHA256SUMS").read_text() == expected


def test_sha256sum_reads_them(tmp_path: Path) -> None:
    """`sha256sum --check` accepts what was written, and refuses it once a file has changed."""
    (tmp_path / "a+b_1.0~rc").write_bytes(b"1")
    write_checksums(tmp_path, "SHA256SUMS")

    def check() -> int:
        command = ["sha256sum", "--strict", "--check", "SHA256SUMS"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode

    assert check() == 0
    (tmp_path / "a+b_1.0~rc").write_bytes(b"2")
    assert check() != 0
