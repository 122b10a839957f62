"""The draft of what is said about a release."""

from __future__ import annotations

import re
from dataclasses import dataclass

from release.commands import answer, succeeds
from release.manifest import Changelog
from release.plan import Plan

_GIT_TAG = "v[0-9]*.[0-9]*.[0-9]*"


@dataclass(frozen=True)
class Commit:
    """A commit by the first line of its message."""

    short: str
    subject: str


def draft(plan: Plan) -> str:
    """The notes of a release: what people wrote in the changelog, then the commits since the last release."""
    rules = plan.manifest.changelog
    previous = previous_tag(plan)
    written = section(plan.root.joinpath(rules.file).read_text("utf-8"), plan.version, rules.section)
    since = f"Commits since {previous}" if previous else "Commits"
    parts = [written, f"## {since}", grouped(commits_since(plan, previous), rules)]
    return "\n\n".join(part for part in parts if part) + "\n"


def previous_tag(plan: Plan) -> str:
    """The release before this one, empty if it is the first; a pre-release comes before pre-releases only."""
    # What changed since 1.1.0 is asked of 1.2.0, not what changed since 1.2.0-rc.1.
    only = () if plan.is_prerelease else ("--exclude", "v*-*")
    asked = ("git", "describe", "--tags", "--abbrev=0", "--match", _GIT_TAG, "--exclude", plan.tag, *only, "HEAD")
    return answer(*asked, cwd=plan.root) if succeeds(*asked, cwd=plan.root) else ""


def commits_since(plan: Plan, tag: str) -> list[Commit]:
    """The commits after a tag, or all, newest first."""
    log = answer("git", "log", "--no-merges", "--abbrev=7", "--format=%h%x09%s", f"{tag}..HEAD" if tag else "HEAD", cwd=plan.root)
    return [Commit(*line.split("\t", 1)) for line in log.splitlines()]


def grouped(commits: list[Commit], rules: Changelog) -> str:
    """The commits below the titles of their groups; those that fit into none, and those excluded, are left out."""
    groups: dict[str, list[Commit]] = {group.title: [] for group in rules.groups}
    for commit in commits:
        if any(re.search(pattern, commit.subject) for pattern in rules.exclude):
            continue
        for group in rules.groups:
            if re.search(group.pattern, commit.subject):
                groups[group.title].append(commit)
                break
    parts = []
    for title, members in groups.items():
        if members:
            parts.append("\n".join([f"### {title}", "", *(f"- {commit.subject} ({commit.short})" for commit in members)]))
    return "\n\n".join(parts)


def section(changelog: str, version: str, unreleased: str) -> str:
    """The text below the heading of the version, or else below that of what is not released yet; empty without either."""
    for name in (version, unreleased):
        found = re.search(rf"^## \[?{re.escape(name)}(?![\w.+-])[^\n]*\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
        if found:
            return found[1].strip()
    return ""
