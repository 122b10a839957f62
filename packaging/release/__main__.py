"""The command line of `scripts/release`."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

if __package__ in {None, ""}:
    # Started by the name of its folder; the modules are found as those of a package, whose folder is one above.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from gateway.core.build_info import of_checkout
from release import gather, make, publish
from release.commands import answer, run
from release.errors import ReleaseError
from release.manifest_file import load
from release.plan import Plan

ROOT = Path(__file__).resolve().parents[2]


def main(arguments: list[str]) -> int:
    """Do what the command line says; return the exit code."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    if asked.snapshot == bool(asked.step):
        parser.error("give a step, or --snapshot")
    try:
        plan = plan_of(ROOT, owner=asked.owner)
        # Whatever is started from here takes every time from it.
        os.environ["SOURCE_DATE_EPOCH"] = str(plan.epoch)
        if asked.snapshot:
            snapshot(plan)
        elif asked.step == "build":
            plan.require_tag()
            make.build(plan, plan.manifest.target(asked.target), snapshot=False, say=say)
        elif asked.step == "smoke":
            smoke(plan, asked.program)
        elif asked.step == "gather":
            plan.require_tag()
            gather.gather(plan, plan.manifest.targets, snapshot=False)
        elif asked.step == "publish":
            publish.publish(plan)
        else:
            show(plan)
    except ReleaseError as error:
        say(str(error))
        return 1
    return 0


def plan_of(root: Path, *, owner: str) -> Plan:
    """What a checkout would be released as."""
    manifest = load(root)
    epoch = int(answer("git", "log", "-1", "--format=%ct", cwd=root))
    return Plan(root=root, manifest=manifest, version=of_checkout(root).number, epoch=epoch, owner=owner)


def snapshot(plan: Plan) -> None:
    """Make everything for this machine, publish nothing."""
    target = plan.manifest.target(make.this_platform())
    shutil.rmtree(plan.out, ignore_errors=True)
    make.build(plan, target, snapshot=True, say=say)
    gather.gather(plan, [target], snapshot=True)
    for path in sorted(path for path in plan.out.rglob("*") if path.is_file()):
        say(f"{path.relative_to(plan.root)} ({path.stat().st_size} bytes)")


def smoke(plan: Plan, program: str) -> None:
    """Try a program in the image of each distribution."""
    path = Path(program).resolve() if program else plan.binary
    for image in plan.manifest.smoke.distributions:
        say(f"trying it on {image}")
        files = ("--volume", f"{path}:/program:ro", "--volume", f"{make.HERE / 'smoke'}:/smoke:ro")
        run("docker", "run", "--rm", "--network", "none", *files, image, "bash", "/smoke", "/program", cwd=plan.root)


def show(plan: Plan) -> None:
    """Say what would be released."""
    say(f"release.yml is sound; this checkout is {plan.version}")
    for target in plan.manifest.targets:
        say(f"{target.platform} would give {plan.file_name(target, 'tar.gz')}")
    say(f"image {plan.image_name} with the tags {', '.join(plan.image_tags)}")


def say(text: str) -> None:
    """Tell the person in front of it, one line a fact."""
    for line in text.splitlines():
        sys.stderr.write(f"release: {line}\n")
    sys.stderr.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/release", description="Makes a release, as release.yml declares it.")
    parser.add_argument("--snapshot", action="store_true", help="make everything for this machine, publish nothing")
    owner = os.environ.get("GITHUB_REPOSITORY_OWNER") or "local"
    parser.add_argument("--owner", default=owner, help="whose registry the image goes to (default: %(default)s)")
    steps = parser.add_subparsers(dest="step", metavar="STEP")
    build = steps.add_parser("build", help="make everything for one target, in its container")
    build.add_argument("--target", required=True, metavar="PLATFORM", help="linux/amd64, say")
    smoke = steps.add_parser("smoke", help="try the program in the images of several distributions")
    smoke.add_argument("program", nargs="?", help="default: the one in dist/")
    steps.add_parser("gather", help="make SBOM, notes and checksums of what all targets have given")
    steps.add_parser("publish", help="push the image and draft the release")
    steps.add_parser("plan", help="check release.yml and say what would be released")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
