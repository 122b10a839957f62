"""The program is built from what is committed, with a portable interpreter."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from testkit import CHECKOUT
from testkit.release import Checkout, Tools, checkout, tools

__all__ = ["checkout", "tools"]

SCRIPT = CHECKOUT / "packaging" / "release" / "build-in-container"
# A stand-in for scripts/build: it writes down what it was given.
BUILD = """\
#!/bin/bash
mkdir -p dist/onedir
echo "$GATEWAY_PYTHON $SOURCE_DATE_EPOCH $(git describe --tags) $(cat LICENSE)" >dist/lightfile6-insights-gateway
"""
# A stand-in for the interpreter of the distribution, which makes a venv with stand-ins in it.
PYTHON = """\
mkdir -p $3/bin
printf '#!/bin/bash\\necho "pip $*" >>$CALLS\\n' >$3/bin/python
printf '#!/bin/bash\\necho "uv $*" >>$CALLS\\n[ "$2" != find ] || echo %s\\n' "$PORTABLE" >$3/bin/uv
chmod +x $3/bin/*
"""


@pytest.fixture
def committed(checkout: Checkout) -> Checkout:
    """Commit the stand-in for scripts/build under a tag, and change a file afterwards."""
    (checkout.root / "scripts").mkdir()
    (checkout.root / "scripts" / "build").write_text(BUILD)
    (checkout.root / "scripts" / "build").chmod(0o755)
    checkout.git("add", "scripts", "LICENSE")
    checkout.git("commit", "-q", "-m", "Build")
    checkout.git("tag", "v1.2.3")
    (checkout.root / "LICENSE").write_text("changed")
    return checkout


def run(checkout: Checkout, out: Path, calls: Path) -> subprocess.CompletedProcess[str]:
    """Build as in the container, with stand-ins for what would be downloaded."""
    given = {"PYTHON": "3.13.18", "OWNER": f"{os.getuid()}:{os.getgid()}", "SOURCE_DATE_EPOCH": "1800000000"}
    stand_ins = {"CALLS": str(calls), "PORTABLE": str(calls.parent / "bin" / "portable")}
    command = [SCRIPT, checkout.root, out, out.with_name("scratch")]
    return subprocess.run(command, env={**os.environ, **given, **stand_ins}, capture_output=True, text=True, check=False)


def test_what_is_committed_is_built(committed: Checkout, tools: Tools, tmp_path: Path) -> None:
    """The tag is built, without later changes, with the portable interpreter and the time of the commit."""
    tools("dnf")
    tools("portable", "echo Python 3.13.18")
    calls = tools("python3.12", PYTHON)
    (tmp_path / "out" / "onedir" / "of an earlier build").mkdir(parents=True)
    done = run(committed, tmp_path / "out", calls)
    assert done.returncode == 0, done.stderr
    built = (tmp_path / "out" / "lightfile6-insights-gateway").read_text()
    assert built == f"{tmp_path}/bin/portable 1800000000 v1.2.3 the LICENSE\n"
    assert list((tmp_path / "out" / "onedir").iterdir()) == []
    assert "building v1.2.3 with Python 3.13.18 on glibc" in done.stderr
    made = calls.read_text()
    assert "pip -m pip --quiet install --require-hashes -r packaging/release/uv.lock" in made
    assert "uv python install --no-bin 3.13.18" in made
    assert not (committed.root / "dist" / "onedir").exists()


def test_what_is_missing_is_installed(committed: Checkout, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there is installed with its package, before anything else."""
    few = tmp_path / "few"
    few.mkdir()
    for name in ("bash", "cat", "chmod", "chown", "cp", "env", "getconf", "git", "ldd", "make", "mkdir", "rm"):
        (few / name).symlink_to(str(shutil.which(name)))
    tools("portable", "echo Python 3.13.18")
    interpreter = shlex.quote(f"#!/bin/bash\n{PYTHON}")
    calls = tools("dnf", f"echo {interpreter} >{tmp_path}/bin/python3.12; chmod +x {tmp_path}/bin/python3.12")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{few}")
    done = run(committed, tmp_path / "out", calls)
    assert done.returncode == 0, done.stderr
    installed = calls.read_text().splitlines()[0].split()
    assert installed[:4] == ["dnf", "-q", "-y", "install"]
    assert {"gcc", "binutils", "tar", "gzip", "findutils", "python3.12"} <= set(installed)
    assert not {"git", "make", "glibc-common"} & set(installed)
