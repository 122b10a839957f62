"""What is made for one target, on a machine of its kind."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from release import make
from release.errors import ReleaseError
from release.plan import Plan
from testkit.release import EPOCH, Checkout, Tools, checkout, stand_ins, tools

__all__ = ["checkout", "stand_ins", "tools"]


@pytest.fixture
def plan(stand_ins: Checkout, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Plan a release in which every program is a stand-in, and a package is a text."""
    monkeypatch.setattr(make, "build_deb", lambda *_, out, **about: out.write_text(str(about)) and out)
    return stand_ins.plan("1.2.3")


def calls(plan: Plan) -> list[str]:
    """What was run, in order, but for objdump."""
    lines = (plan.root.parent / "calls").read_text().splitlines()
    return [line for line in lines if not line.startswith("objdump")]


def build(plan: Plan, *, snapshot: bool, platform: str = "linux/amd64") -> list[str]:
    """Build a target, and return what was said."""
    said: list[str] = []
    make.build(plan, plan.manifest.target(platform), snapshot=snapshot, say=said.append)
    return said


IMAGE = "ghcr.io/somebody/lightfile6-insights-gateway:1.2.3-amd64"


def test_a_snapshot_is_built_here(plan: Plan) -> None:
    """A snapshot is built by scripts/build of this machine, tried, packed, and made into an image."""
    build(plan, snapshot=True)
    program, file = plan.binary, plan.image_file(plan.manifest.target("linux/amd64"))
    assert calls(plan) == [
        "called scripts/build",
        f"called smoke {program}",
        "docker info",
        f"called scripts/image --tag {IMAGE}",
        f"docker save --output {file} {IMAGE}",
    ]
    assert file.read_text() == "image\n"
    with tarfile.open(plan.assets / "lightfile6-insights-gateway_1.2.3_linux_amd64.tar.gz") as archive:
        names = [member.name.partition("/")[2] for member in archive.getmembers()]
        assert {member.mtime for member in archive.getmembers()} == {EPOCH}
    assert names == ["LICENSE", "README.md", "config.yml.example", "lightfile6-insights-gateway"]


def test_a_package_says_which_glibc_it_needs(plan: Plan) -> None:
    """The package is told the version, the architecture, and the glibc that was found."""
    build(plan, snapshot=True)
    said = (plan.assets / "lightfile6-insights-gateway_1.2.3_linux_amd64.deb").read_text()
    assert said == "{'version': '1.2.3', 'architecture': 'amd64', 'glibc': '2.17'}"


def test_without_docker_a_snapshot_has_no_image(plan: Plan, tools: Tools) -> None:
    """Where no Docker daemon answers, a snapshot says that it did without an image."""
    tools("docker", "exit 1")
    assert "made NO image, since no Docker daemon answers here" in build(plan, snapshot=True)


def test_without_docker_no_release_is_built(plan: Plan, tools: Tools) -> None:
    """A release needs Docker."""
    tools("docker", "exit 1")
    with pytest.raises(ReleaseError, match="`docker run --rm` ended with 1"):
        build(plan, snapshot=False)


def test_a_release_is_built_in_the_container_of_its_target(plan: Plan) -> None:
    """A release is built in the container that release.yml names, which reads the checkout and writes dist/ only."""
    build(plan, snapshot=False)
    (run,) = [call for call in calls(plan) if call.startswith("docker run")]
    assert "called scripts/build" not in calls(plan)
    assert f"--env SOURCE_DATE_EPOCH={EPOCH} --env PYTHON=3.13.18" in run
    assert f"--volume {plan.root}:/checkout:ro --volume {plan.root / 'dist'}:/out almalinux:8 bash" in run
    assert run.endswith("/checkout/packaging/release/build-in-container /checkout /out /scratch")


def test_another_machine_is_refused(plan: Plan) -> None:
    """A target of another architecture is not built, and nothing is run."""
    with pytest.raises(ReleaseError, match="linux/arm64 is built on a machine of its own kind"):
        build(plan, snapshot=False, platform="linux/arm64")
    assert calls(plan) == []


def test_a_newer_glibc_ends_a_release(plan: Plan, tools: Tools) -> None:
    """A program that needs a newer glibc than release.yml allows is not released."""
    tools("objdump", "echo '*UND* (GLIBC_2.29) x'")
    with pytest.raises(ReleaseError, match=r"lightfile6-insights-gateway needs GLIBC_2\.29; build on a system with GLIBC_2\.28"):
        build(plan, snapshot=False)
    assert list(plan.assets.iterdir()) == []


def test_a_newer_glibc_is_told_of_a_snapshot(plan: Plan, tools: Tools) -> None:
    """A snapshot that needs a newer glibc is made, and says so."""
    tools("objdump", "echo '*UND* (GLIBC_2.29) x'")
    said = build(plan, snapshot=True)
    assert "which is more than a release may need: this snapshot runs on systems as new as this one" in said


def test_the_floor_that_is_allowed_is_enough(plan: Plan, tools: Tools) -> None:
    """A program that needs just what release.yml allows is released."""
    tools("objdump", "echo '*UND* (GLIBC_2.28) x'")
    assert any("needs GLIBC_2.28" in line for line in build(plan, snapshot=False))


def test_the_unpacked_program_is_looked_at(plan: Plan, tools: Tools) -> None:
    """The libraries of the unpacked program count, which the file of one piece hides."""
    library = plan.root / "dist" / "onedir" / "lightfile6-insights-gateway" / "_internal" / "libnew.so"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"\x7fELF")
    tools("objdump", "case $2 in *libnew.so) echo '*UND* (GLIBC_2.38) x' ;; *) echo '*UND* (GLIBC_2.17) x' ;; esac")
    with pytest.raises(ReleaseError, match=r"libnew\.so needs GLIBC_2\.38"):
        build(plan, snapshot=False)


def test_a_program_without_glibc_is_suspicious(plan: Plan, tools: Tools) -> None:
    """A program in which no version was found was not looked at rightly."""
    tools("objdump")
    with pytest.raises(ReleaseError, match="asks for any glibc"):
        build(plan, snapshot=True)


def test_a_program_that_fails_is_not_packed(plan: Plan) -> None:
    """Nothing is packed of a program that does not run."""
    (plan.root / "smoke").write_text("#!/bin/bash\nexit 1\n")
    with pytest.raises(ReleaseError, match="smoke"):
        build(plan, snapshot=True)
    assert list(plan.assets.iterdir()) == []


def test_two_builds_give_the_same_archive(plan: Plan) -> None:
    """The archive of the same program is the same to the byte."""
    archive = plan.assets / "lightfile6-insights-gateway_1.2.3_linux_amd64.tar.gz"
    build(plan, snapshot=True)
    first = archive.read_bytes()
    plan.binary.touch()
    build(plan, snapshot=True)
    assert archive.read_bytes() == first


def test_this_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's name of the machine is told as Docker's."""
    for kernel, docker in (("x86_64", "linux/amd64"), ("aarch64", "linux/arm64"), ("riscv64", "linux/riscv64")):
        monkeypatch.setattr("platform.machine", lambda kernel=kernel: kernel)
        assert make.this_platform() == docker


def test_scripts_are_where_they_are_called(checkout: Checkout) -> None:
    """What is run in the container, and to try a program, is in this checkout and executable."""
    here = Path(make.__file__).parent
    assert all((here / name).stat().st_mode & 0o111 for name in ("smoke", "build-in-container"))
