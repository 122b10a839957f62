"""The draft of what is said about a release."""

from __future__ import annotations

import pytest

from release.changelog import commits_since, draft, previous_tag, section
from testkit.release import CHANGELOG, Checkout, checkout

__all__ = ["checkout"]


def test_draft(checkout: Checkout) -> None:
    """The draft has what people wrote, then the commits since the last release, grouped, newest first, without merges."""
    checkout.git("tag", "v1.1.0")
    checkout.commit("Keeps reports longer")
    checkout.commit("Docs: a sentence")
    checkout.commit("Merge branch 'x' of nowhere")
    checkout.commit("Tests wait better")
    checkout.commit("Answers sooner | with `code`")
    found = draft(checkout.plan("1.2.0"))
    lines = [line.rsplit(" (", 1)[0] for line in found.splitlines() if line]
    assert lines == [
        "- Something new.",
        "## Commits since v1.1.0",
        "### Tests and tools",
        "- Tests wait better",
        "### Documentation",
        "- Docs: a sentence",
        "### Changes",
        "- Answers sooner | with `code`",
        "- Keeps reports longer",
    ]


def test_the_first_release_has_all_commits(checkout: Checkout) -> None:
    """Without an earlier tag every commit is told."""
    checkout.git("tag", "v0.1.0")
    plan = checkout.plan("0.1.0")
    assert previous_tag(plan) == ""
    assert [commit.subject for commit in commits_since(plan, "")] == ["Begin"]
    assert "## Commits\n" in draft(plan)


@pytest.mark.parametrize(
    ("version", "previous"),
    [("1.2.0", "v1.1.0"), ("1.2.0-rc.2", "v1.2.0-rc.1"), ("1.2.0-rc.1", "v1.1.0"), ("1.2.0+1.g0123456", "v1.1.0")],
)
def test_the_release_before(checkout: Checkout, version: str, previous: str) -> None:
    """A release follows the last release, a pre-release the last tag of any kind; a tag of the commit itself is not before."""
    for tag in ("v1.1.0", "v1.2.0-rc.1", "v1.2.0-rc.2", "v1.2.0"):
        checkout.commit(tag)
        checkout.git("tag", tag)
        if tag == f"v{version}":
            break
    assert previous_tag(checkout.plan(version)) == (previous if "+" not in version else "v1.2.0")


@pytest.mark.parametrize(
    ("version", "text"),
    [("1.0.0", "- The first one."), ("1.2.3", "- Something new."), ("1.0", "- Something new.")],
)
def test_section(version: str, text: str) -> None:
    """The section of the version is taken, or else that of what is not released yet."""
    assert section(CHANGELOG, version, "Unreleased") == text


def test_a_changelog_without_either_says_nothing() -> None:
    """A changelog without a fitting section gives no text."""
    assert section("# Changelog\n\n## 0.9.0\n\n- Old.\n", "1.0.0", "Unreleased") == ""
