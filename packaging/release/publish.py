"""Hands a release out: the image to its registry, the files and the notes to a draft on GitHub."""

from __future__ import annotations

import json
import os

from release.commands import answer, run, succeeds
from release.errors import ReleaseError
from release.plan import Plan


def publish(plan: Plan) -> None:
    """Push the image of all targets, then draft the release; a second run takes up where the first one failed.

    Raises:
        ReleaseError: nothing tags this checkout, something is missing, or the release is out already.
    """
    plan.require_tag()
    if missing := [name for name in _files(plan) if not (plan.assets / name).is_file()]:
        raise ReleaseError(f"{', '.join(missing)}: not in {plan.assets}; gather first.")
    run("sha256sum", "--quiet", "--strict", "--check", plan.manifest.checksums.name, cwd=plan.assets)
    # Asked first: what people may have downloaded already is never replaced, and neither is its image.
    exists = _draft_exists(plan)
    _push_image(plan)
    _draft(plan, exists=exists)


def _draft_exists(plan: Plan) -> bool:
    if not succeeds("gh", "release", "view", plan.tag, cwd=plan.root):
        return False
    if not json.loads(answer("gh", "release", "view", plan.tag, "--json", "isDraft", cwd=plan.root))["isDraft"]:
        raise ReleaseError(f"{plan.tag} has been published already; make a new version instead.")
    return True


def _push_image(plan: Plan) -> None:
    if (token := os.environ.get("GH_TOKEN")) and (actor := os.environ.get("GITHUB_ACTOR")):
        registry = plan.image_name.partition("/")[0]
        run("docker", "login", registry, "--username", actor, "--password-stdin", cwd=plan.root, stdin=token)
    parts = []
    for target in plan.manifest.targets:
        part = plan.target_image(target)
        run("docker", "load", "--quiet", "--input", plan.image_file(target), cwd=plan.root)
        run("docker", "push", "--quiet", part, cwd=plan.root)
        parts.append(part)
    names = [f"{plan.image_name}:{tag}" for tag in plan.image_tags]
    tags = [word for name in names for word in ("--tag", name)]
    run("docker", "buildx", "imagetools", "create", *tags, *parts, cwd=plan.root)
    digest = answer("docker", "buildx", "imagetools", "inspect", names[0], "--format", "{{.Manifest.Digest}}", cwd=plan.root)
    _tell_workflow({"image": plan.image_name, "digest": digest})


def _draft(plan: Plan, *, exists: bool) -> None:
    files = [plan.assets / name for name in _files(plan)]
    if exists:
        run("gh", "release", "upload", plan.tag, "--clobber", *files, cwd=plan.root)
        run("gh", "release", "edit", plan.tag, "--notes-file", plan.notes, cwd=plan.root)
        return
    kind = ["--prerelease"] if plan.is_prerelease else []
    about = ["--verify-tag", "--title", plan.tag, "--notes-file", str(plan.notes)]
    run("gh", "release", "create", plan.tag, "--draft", *kind, *about, *files, cwd=plan.root)


def _files(plan: Plan) -> list[str]:
    """The names of what is published: just what the checksums were made of, and they themselves."""
    return sorted({*plan.target_files(plan.manifest.targets), plan.sbom_name, plan.manifest.checksums.name})


def _tell_workflow(outputs: dict[str, str]) -> None:
    """Hand values to the steps of the workflow that come after this one."""
    if path := os.environ.get("GITHUB_OUTPUT"):
        with open(path, "a", encoding="utf-8") as out:
            out.writelines(f"{name}={value}\n" for name, value in outputs.items())
