"""The command line of `scripts/release`."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from testkit import CHECKOUT
from testkit.release import EPOCH, Checkout, Tools, checkout, stand_ins, tools

__all__ = ["checkout", "stand_ins", "tools"]

main = importlib.import_module("release.__main__")


@pytest.fixture(autouse=True)
def here(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    """Release the small checkout, as nobody in particular."""
    monkeypatch.setattr(main, "ROOT", checkout.root)
    monkeypatch.delenv("GITHUB_REPOSITORY_OWNER", raising=False)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1")


def test_it_runs_by_the_name_of_its_folder() -> None:
    """`python packaging/release plan` finds its modules from anywhere, and tells about this checkout."""
    command = [sys.executable, str(CHECKOUT / "packaging" / "release"), "plan"]
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert done.stderr.startswith("release: release.yml is sound; this checkout is ")


def test_plan(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    """`plan` says which files and which image a tag would give."""
    checkout.git("tag", "v1.2.3")
    assert main.main(["--owner", "Me", "plan"]) == 0
    assert capsys.readouterr().err.splitlines() == [
        "release: release.yml is sound; this checkout is 1.2.3",
        "release: linux/amd64 would give lightfile6-insights-gateway_1.2.3_linux_amd64.tar.gz",
        "release: linux/arm64 would give lightfile6-insights-gateway_1.2.3_linux_arm64.tar.gz",
        "release: image ghcr.io/me/lightfile6-insights-gateway with the tags 1.2.3, 1.2, latest",
    ]


@pytest.mark.parametrize("step", [["build", "--target", "linux/amd64"], ["gather"], ["publish"]])
def test_without_a_tag_nothing_is_released(step: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A checkout that no tag names is refused in one line, with what to do."""
    assert main.main(step) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("which no tag names; release a clean checkout of a tag, or use --snapshot.")


def test_every_line_of_a_fault_says_who_speaks(checkout: Checkout, capsys: pytest.CaptureFixture[str]) -> None:
    """Faults of release.yml are told one a line."""
    path = checkout.root / "release.yml"
    path.write_text(path.read_text().replace("format: deb", "format: rpm").replace("lock: requ", "lock: Requ"))
    assert main.main(["plan"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[:2] for line in lines] == [["release", " release.yml"]]
    path.write_text(path.read_text().replace("format: rpm", "form: deb").replace("lock: Requ", "look: requ"))
    assert main.main(["plan"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2


@pytest.mark.parametrize("arguments", [["build"], ["publsh"], ["--snapshots"], []])
def test_bad_usage(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped step or flag, and none at all, ends with 2 and the usage."""
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    assert caught.value.code == 2
    assert "usage: scripts/release" in capsys.readouterr().err


def test_two_snapshots_are_the_same(stand_ins: Checkout) -> None:
    """Two snapshots of one program give the same files, the package too, to the byte, and nothing that was there before."""
    out = stand_ins.root / "dist" / "release"

    def made() -> dict[str, bytes]:
        assert main.main(["--snapshot"]) == 0
        return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}

    first = made()
    (out / "assets" / "old").touch()
    assert made() == first
    version = main.of_checkout(stand_ins.root).number
    assert sorted(name.replace(version, "V") for name in first) == [
        "assets/SHA256SUMS",
        "assets/lightfile6-insights-gateway_V.cdx.json",
        "assets/lightfile6-insights-gateway_V_linux_amd64.deb",
        "assets/lightfile6-insights-gateway_V_linux_amd64.tar.gz",
        "images/linux-amd64.tar",
        "notes.md",
    ]


def test_a_snapshot_publishes_nothing(stand_ins: Checkout, tools: Tools) -> None:
    """A snapshot calls neither GitHub nor a registry."""
    log = tools("gh")
    assert main.main(["--snapshot"]) == 0
    called = log.read_text()
    assert "gh " not in called
    assert "push" not in called


def test_times_are_those_of_the_commit(stand_ins: Checkout, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is started gets the time of the commit, not another one."""
    log = tools("called", f'echo "epoch $SOURCE_DATE_EPOCH" >>{stand_ins.root}/epochs')
    assert main.main(["--snapshot"]) == 0
    assert "called scripts/build" in log.read_text()
    assert set((stand_ins.root / "epochs").read_text().splitlines()) == {f"epoch {EPOCH}"}


def test_smoke(stand_ins: Checkout, tools: Tools) -> None:
    """The program is tried in the image of every distribution, without a network."""
    assert main.main(["smoke"]) == 0
    made = tools("docker").read_text().splitlines()
    program = stand_ins.root / "dist" / "lightfile6-insights-gateway"
    volumes = f"--volume {program}:/program:ro --volume {stand_ins.root / 'smoke'}:/smoke:ro"
    assert made == [
        f"docker run --rm --network none {volumes} {image} bash /smoke /program"
        for image in ("debian:11", "ubuntu:20.04", "almalinux:8", "amazonlinux:2023")
    ]


def test_smoke_fails_with_the_first_distribution(stand_ins: Checkout, tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    """A distribution on which the program does not run ends the release, and is named."""
    tools("docker", "[[ $* != *almalinux* ]]")
    assert main.main(["smoke"]) == 1
    assert capsys.readouterr().err.splitlines()[-2:] == [
        "release: trying it on almalinux:8",
        "release: `docker run --rm` ended with 1.",
    ]
