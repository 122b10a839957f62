"""The package for Debian and Ubuntu: the program, its unit for systemd, and its documentation."""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
from datetime import UTC, datetime
from email.utils import format_datetime
from pathlib import Path

from release.commands import run

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGE = "lightfile6-insights-gateway"
# What is published is built so that it needs no newer one.
GLIBC = "2.28"
# The host is one that can never be: whoever publishes packages sets an address of their own.
MAINTAINER = "The Lightfile6 Insights Gateway authors <maintainers@lightfile6.invalid>"
SCRIPTS = ("postinst", "prerm", "postrm")
DOC = f"usr/share/doc/{PACKAGE}"


def build_deb(
    binary: Path, *, version: str, architecture: str, out: Path, glibc: str = GLIBC, maintainer: str = MAINTAINER
) -> Path:
    """Make the package and return where it is.

    The same binary and the same SOURCE_DATE_EPOCH give the same package to the byte; without that variable the time is that
    of the binary.

    Args:
        binary: the one-file program.
        version: as the program tells it: `1.2.3`, `1.2.3-rc.1`, `1.2.3+5.g0123456`.
        architecture: as Debian and Docker name it: `amd64`.
        out: the package, whose name ends in `.deb`; an older one is replaced.
        glibc: the version of glibc that the program needs.
        maintainer: name and address of whoever answers for the package.

    Raises:
        ReleaseError: there is no dpkg-deb, or it refuses.
    """
    epoch_s = int(os.environ.get("SOURCE_DATE_EPOCH") or binary.stat().st_mtime)
    number = debian_version(version)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="deb-") as scratch:
        root = Path(scratch) / "root"
        _fill(root, binary, number, maintainer, epoch_s)
        fields = {"version": number, "architecture": architecture, "maintainer": maintainer, "glibc": glibc}
        _write_control(root, fields)
        _settle(root, epoch_s)
        run(
            # xz is what every dpkg reads; the program inside is compressed already.
            *("dpkg-deb", "--root-owner-group", "-Zxz", "--build", root, out),
            cwd=CHECKOUT,
            environment={"SOURCE_DATE_EPOCH": str(epoch_s)},
        )
    return out


def debian_version(version: str) -> str:
    """Write a version so that Debian orders it rightly: what comes before a release has a `~`, and sorts before it."""
    number, plus, build = version.partition("+")
    release, _, before = number.partition("-")
    # Another hyphen would begin the revision of a package.
    return release + (f"~{before.replace('-', '.')}" if before else "") + plus + build.replace("-", ".")


def _fill(root: Path, binary: Path, version: str, maintainer: str, epoch_s: int) -> None:
    """Lay out what is installed."""
    packaging = CHECKOUT / "packaging"
    for unit in (f"{PACKAGE}.service", f"{PACKAGE}.socket"):
        _copy(packaging / "systemd" / unit, root / "usr/lib/systemd/system" / unit)
    _copy(binary, root / "usr/bin" / PACKAGE, mode=0o755)
    _copy(packaging / "deb" / "lintian-overrides", root / "usr/share/lintian/overrides" / PACKAGE)
    # No file of dpkg's: without the names of the buckets nothing can be started, so a person writes it.
    _copy(CHECKOUT / "config.yml.example", root / DOC / "examples/config.yml.example")
    _copy(CHECKOUT / "README.md", root / DOC / "README.md")
    for page in sorted((CHECKOUT / "docs").glob("*.md")):
        _copy(page, root / DOC / "docs" / page.name)
    _compress(root / DOC / "NEWS.md.gz", (CHECKOUT / "CHANGELOG.md").read_bytes())
    _compress(root / DOC / "changelog.gz", _changelog(version, maintainer, epoch_s).encode())
    about = (packaging / "deb" / "copyright").read_text("utf-8")
    (root / DOC / "copyright").write_text(about + _license_text(), "utf-8")


def _copy(source: Path, target: Path, *, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _compress(target: Path, content: bytes) -> None:
    # Neither a name nor a time in its head.
    target.write_bytes(gzip.compress(content, 9, mtime=0))


def _changelog(version: str, maintainer: str, epoch_s: int) -> str:
    """One entry in Debian's form; what changed stands beside it, as people wrote it."""
    date = format_datetime(datetime.fromtimestamp(epoch_s, UTC))
    return (
        f"{PACKAGE} ({version}) stable; urgency=medium\n\n"
        f"  * Version {version}; NEWS.md.gz tells what changed.\n\n"
        f" -- {maintainer}  {date}\n"
    )


def _license_text() -> str:
    """The license as a paragraph of the copyright file, whose lines are indented and never empty."""
    text = (CHECKOUT / "LICENSE").read_text("utf-8").partition("\n\n")[2].partition("\n\n")[2]
    return "".join(f" {line or '.'}\n" for line in text.strip().splitlines())


def _write_control(root: Path, fields: dict[str, str]) -> None:
    """Write what dpkg reads: the description of the package and the scripts that it runs."""
    source, control = CHECKOUT / "packaging" / "deb", root / "DEBIAN"
    # As dpkg counts: each file in whole kibibytes, everything else as one.
    found = [path for path in root.rglob("*") if path != control]
    installed = sum(-(-path.stat().st_size // 1024) if path.is_file() else 1 for path in found)
    control.mkdir()
    text = (source / "control").read_text("utf-8")
    (control / "control").write_text(text.format(**fields, installed_kib=installed), "utf-8")
    sums = [f"{_md5(path)}  {path.relative_to(root)}\n" for path in sorted(found) if path.is_file()]
    (control / "md5sums").write_text("".join(sums))
    for script in SCRIPTS:
        _copy(source / script, control / script, mode=0o755)


def _md5(path: Path) -> str:
    """The sum that `dpkg --verify` compares, which knows no other kind."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _settle(root: Path, epoch_s: int) -> None:
    """Give everything one time, and folders the permissions that all of them have, whatever the umask is here."""
    for path in [root, *root.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
        elif not path.stat().st_mode & 0o100:
            path.chmod(0o644)
        os.utime(path, (epoch_s, epoch_s))
