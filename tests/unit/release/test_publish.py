"""Hands a release out: the image to its registry, the files and the notes to a draft on GitHub."""

from __future__ import annotations

from pathlib import Path

import pytest

from release.errors import ReleaseError
from release.gather import gather
from release.plan import Plan
from release.publish import publish
from testkit.release import Checkout, Tools, checkout, tools

__all__ = ["checkout", "tools"]

NAME = "ghcr.io/somebody/lightfile6-insights-gateway"
NO_RELEASE = '[ "$2" != view ]'
A_DRAFT = '[ "$2" != view ] || echo \'{"isDraft": true}\''
A_RELEASE = '[ "$2" != view ] || echo \'{"isDraft": false}\''


@pytest.fixture(autouse=True)
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run outside of any workflow."""
    for name in ("GH_TOKEN", "GITHUB_ACTOR", "GITHUB_OUTPUT"):
        monkeypatch.delenv(name, raising=False)


def gathered(checkout: Checkout, version: str = "1.2.3") -> Plan:
    """Plan a release of which everything is made."""
    plan = checkout.plan(version)
    plan.assets.mkdir(parents=True)
    for name in plan.target_files(plan.manifest.targets):
        (plan.assets / name).write_text(name)
    gather(plan, plan.manifest.targets, snapshot=False)
    return plan


def calls(tools: Tools, gh: str) -> list[str]:
    """Put gh and docker in place, and return what they are called with, once they have been."""
    tools("docker", '[ "$2" != imagetools ] || [ "$3" != inspect ] || echo sha256:0123')
    return tools("gh", gh).read_text().splitlines()


def test_the_image_of_all_targets_is_pushed(checkout: Checkout, tools: Tools) -> None:
    """The image of each target is loaded and pushed, and they are joined under every tag."""
    plan = gathered(checkout)
    calls(tools, NO_RELEASE)
    publish(plan)
    images = plan.out / "images"
    made = [call for call in calls(tools, NO_RELEASE) if call.startswith("docker")]
    tags = [f"--tag {NAME}:{tag}" for tag in ("1.2.3", "1.2", "latest")]
    assert made == [
        f"docker load --quiet --input {images}/linux-amd64.tar",
        f"docker push --quiet {NAME}:1.2.3-amd64",
        f"docker load --quiet --input {images}/linux-arm64.tar",
        f"docker push --quiet {NAME}:1.2.3-arm64",
        f"docker buildx imagetools create {' '.join(tags)} {NAME}:1.2.3-amd64 {NAME}:1.2.3-arm64",
        f"docker buildx imagetools inspect {NAME}:1.2.3 --format {{{{.Manifest.Digest}}}}",
    ]


def test_the_release_is_a_draft(checkout: Checkout, tools: Tools) -> None:
    """The release is created as a draft, with the notes and every file, the checksums too, after the image is out."""
    plan = gathered(checkout)
    calls(tools, NO_RELEASE)
    publish(plan)
    names = [*plan.target_files(plan.manifest.targets), plan.sbom_name, "SHA256SUMS"]
    files = " ".join(str(plan.assets / name) for name in sorted(names))
    created = f"gh release create v1.2.3 --draft --verify-tag --title v1.2.3 --notes-file {plan.notes} {files}"
    assert calls(tools, NO_RELEASE)[-1] == created


def test_a_prerelease_is_marked(checkout: Checkout, tools: Tools) -> None:
    """A pre-release is drafted as one, and `latest` does not move."""
    plan = gathered(checkout, "1.2.3-rc.1")
    calls(tools, NO_RELEASE)
    publish(plan)
    made = calls(tools, NO_RELEASE)
    assert "gh release create v1.2.3-rc.1 --draft --prerelease" in made[-1]
    assert "latest" not in "".join(made)


def test_a_second_run_takes_up_the_draft(checkout: Checkout, tools: Tools) -> None:
    """Where the draft is there already, its files and its notes are replaced."""
    plan = gathered(checkout)
    calls(tools, A_DRAFT)
    publish(plan)
    made = [call for call in calls(tools, A_DRAFT) if "view" not in call and call.startswith("gh")]
    assert [call.split()[:4] for call in made] == [["gh", "release", "upload", "v1.2.3"], ["gh", "release", "edit", "v1.2.3"]]


def test_what_is_published_stays(checkout: Checkout, tools: Tools) -> None:
    """Nothing is pushed for a version that is out already."""
    plan = gathered(checkout)
    calls(tools, A_RELEASE)
    with pytest.raises(ReleaseError, match=r"v1\.2\.3 has been published already"):
        publish(plan)
    assert [call for call in calls(tools, A_RELEASE) if call.startswith("docker")] == []


def test_a_changed_file_is_not_published(checkout: Checkout, tools: Tools) -> None:
    """A file that is not what the checksums say stops everything."""
    plan = gathered(checkout)
    (plan.assets / plan.target_files(plan.manifest.targets)[0]).write_text("changed")
    calls(tools, NO_RELEASE)
    with pytest.raises(ReleaseError, match="sha256sum"):
        publish(plan)
    assert calls(tools, NO_RELEASE) == []


def test_a_missing_file_is_told(checkout: Checkout, tools: Tools) -> None:
    """A release that was not gathered is not published."""
    plan = gathered(checkout)
    (plan.assets / "SHA256SUMS").unlink()
    with pytest.raises(ReleaseError, match=r"SHA256SUMS: not in .*; gather first"):
        publish(plan)


def test_only_a_tag_is_published(checkout: Checkout) -> None:
    """A checkout ahead of its tag is not published, whatever is there."""
    with pytest.raises(ReleaseError, match="no tag names"):
        publish(checkout.plan("1.2.3+1.g0123456"))


def test_a_workflow_logs_in_and_is_told(
    checkout: Checkout, tools: Tools, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In a workflow the registry gets the token, on STDIN, and the next steps get name and digest of the image."""
    plan = gathered(checkout)
    monkeypatch.setenv("GH_TOKEN", "secret")
    monkeypatch.setenv("GITHUB_ACTOR", "someone")
    monkeypatch.setenv("GITHUB_OUTPUT", str(tmp_path / "outputs"))
    calls(tools, NO_RELEASE)
    tools("docker", f'[ "$1" != login ] || cat >{tmp_path}/token\n[ "$3" != inspect ] || echo sha256:0123')
    publish(plan)
    made = calls(tools, NO_RELEASE)
    assert "docker login ghcr.io --username someone --password-stdin" in made
    assert "secret" not in "".join(made)
    assert (tmp_path / "token").read_text() == "secret"
    assert (tmp_path / "outputs").read_text() == f"image={NAME}\ndigest=sha256:0123\n"
