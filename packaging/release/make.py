"""What is made for one target, on a machine of its kind."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from pathlib import Path

from release.archive import write_archive
from release.commands import run, succeeds
from release.deb import build_deb
from release.errors import ReleaseError
from release.glibc import floor_of, parsed
from release.manifest import Target
from release.plan import Plan

Say = Callable[[str], None]

HERE = Path(__file__).parent
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def this_platform() -> str:
    """The machine that this runs on, as Docker writes it."""
    return f"linux/{_ARCHITECTURES.get(platform.machine(), platform.machine())}"


def build(plan: Plan, target: Target, *, snapshot: bool, say: Say) -> None:
    """Make everything for a target: the program, checked and tried, its archive, its packages, its image.

    A snapshot is built with what this machine has instead of in the target's container, and does without what is not here.

    Raises:
        ReleaseError: a step failed.
    """
    if target.platform != this_platform():
        raise ReleaseError(f"This machine is {this_platform()}; {target.platform} is built on a machine of its own kind.")
    plan.assets.mkdir(parents=True, exist_ok=True)
    if snapshot:
        run("scripts/build", cwd=plan.root)
    else:
        build_in_container(plan, target)
    floor = check_floor(plan, snapshot=snapshot, say=say)
    run(HERE / "smoke", plan.binary, cwd=plan.root)
    say(f"made {_archive(plan, target).name}")
    if "deb" in plan.manifest.endings:
        say(f"made {_package(plan, target, floor).name}")
    _image(plan, target, snapshot=snapshot, say=say)


def build_in_container(plan: Plan, target: Target) -> None:
    """Build the program in the container of its target, out of a clone of what is committed."""
    dist = plan.root / "dist"
    dist.mkdir(exist_ok=True)
    given = {"SOURCE_DATE_EPOCH": str(plan.epoch), "PYTHON": plan.manifest.build.python, "OWNER": f"{os.getuid()}:{os.getgid()}"}
    run(
        *("docker", "run", "--rm", "--platform", target.platform),
        *(word for name, value in given.items() for word in ("--env", f"{name}={value}")),
        *("--volume", f"{plan.root}:/checkout:ro", "--volume", f"{dist}:/out"),
        *(target.container, "bash", "/checkout/packaging/release/build-in-container", "/checkout", "/out", "/scratch"),
        cwd=plan.root,
    )


def check_floor(plan: Plan, *, snapshot: bool, say: Say) -> str:
    """Say and return which glibc the program needs; refuse one that is newer than release.yml allows.

    Raises:
        ReleaseError: it is newer, and this is no snapshot.
    """
    unpacked = plan.binary.parent / "onedir" / plan.binary.name
    floor, cause = floor_of([plan.binary, unpacked], cwd=plan.root)
    shown = f"{floor[0]}.{floor[1]}"
    if cause is None:
        raise ReleaseError(f"Nothing in {plan.binary} asks for any glibc, so it was not looked at rightly.")
    say(f"the program needs GLIBC_{shown} (because of {cause.name}); at most GLIBC_{plan.manifest.build.glibc} is wanted")
    if floor > parsed(plan.manifest.build.glibc):
        if not snapshot:
            raise ReleaseError(f"{cause.name} needs GLIBC_{shown}; build on a system with GLIBC_{plan.manifest.build.glibc}.")
        say("which is more than a release may need: this snapshot runs on systems as new as this one")
    return shown


def _archive(plan: Plan, target: Target) -> Path:
    members = {Path(name).name: plan.root / name for name in plan.manifest.archive.files}
    members[plan.binary.name] = plan.binary
    out = plan.assets / plan.file_name(target, "tar.gz")
    return write_archive(out, members, programs=frozenset({plan.binary.name}), epoch=plan.epoch)


def _package(plan: Plan, target: Target, glibc: str) -> Path:
    out = plan.assets / plan.file_name(target, "deb")
    return build_deb(plan.binary, version=plan.version, architecture=target.arch, out=out, glibc=glibc)


def _image(plan: Plan, target: Target, *, snapshot: bool, say: Say) -> None:
    if snapshot and not succeeds("docker", "info", cwd=plan.root):
        say("made NO image, since no Docker daemon answers here")
        return
    name, file = plan.target_image(target), plan.image_file(target)
    run("scripts/image", "--tag", name, cwd=plan.root)
    file.parent.mkdir(parents=True, exist_ok=True)
    run("docker", "save", "--output", file, name, cwd=plan.root)
    say(f"made the image {name}")
