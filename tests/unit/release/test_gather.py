"""What is made of all targets together: the SBOM, the notes and the checksums."""

from __future__ import annotations

import pytest

from release.errors import ReleaseError
from release.gather import gather
from release.plan import Plan
from testkit.release import Checkout, checkout

__all__ = ["checkout"]

SBOM = "lightfile6-insights-gateway_1.2.3.cdx.json"


@pytest.fixture
def plan(checkout: Checkout) -> Plan:
    """Plan a release whose targets have been built."""
    plan = checkout.plan("1.2.3")
    plan.assets.mkdir(parents=True)
    for name in plan.target_files(plan.manifest.targets):
        (plan.assets / name).write_text(name)
    return plan


def test_gather(plan: Plan) -> None:
    """There are an SBOM, notes, and checksums of all files, that of the SBOM too."""
    gather(plan, plan.manifest.targets, snapshot=False)
    told = [line.split("  ")[1] for line in (plan.assets / "SHA256SUMS").read_text().splitlines()]
    assert told == sorted([*plan.target_files(plan.manifest.targets), SBOM])
    assert "cpython" in (plan.assets / SBOM).read_text()
    assert plan.notes.read_text().startswith("- Something new.")


def test_gathering_again_gives_the_same(plan: Plan) -> None:
    """A second run gives every file anew, the same to the byte."""
    gather(plan, plan.manifest.targets, snapshot=False)
    first = {path: path.read_bytes() for path in plan.out.rglob("*") if path.is_file()}
    gather(plan, plan.manifest.targets, snapshot=False)
    assert {path: path.read_bytes() for path in plan.out.rglob("*") if path.is_file()} == first


@pytest.mark.parametrize("ending", ["tar.gz", "deb"])
def test_a_missing_file_is_told(plan: Plan, ending: str) -> None:
    """A file that a target has not given is named, and no checksums are written."""
    name = f"lightfile6-insights-gateway_1.2.3_linux_arm64.{ending}"
    (plan.assets / name).unlink()
    with pytest.raises(ReleaseError, match=f"^{name} is not in .*build its target first"):
        gather(plan, plan.manifest.targets, snapshot=False)
    assert not (plan.assets / "SHA256SUMS").exists()


def test_a_folder_is_no_file(plan: Plan) -> None:
    """A folder of the name of a file does not pass for it."""
    path = plan.assets / "lightfile6-insights-gateway_1.2.3_linux_arm64.deb"
    path.unlink()
    path.mkdir()
    with pytest.raises(ReleaseError, match="is not in"):
        gather(plan, plan.manifest.targets, snapshot=False)


def test_what_another_version_left_is_told(plan: Plan) -> None:
    """A file that this version does not have is named, since it would be published."""
    (plan.assets / "lightfile6-insights-gateway_1.2.2_linux_arm64.deb").touch()
    with pytest.raises(ReleaseError, match=r"1\.2\.2_linux_arm64\.deb in .* is no file of 1\.2\.3; remove it"):
        gather(plan, plan.manifest.targets, snapshot=False)


def test_a_snapshot_has_one_target(plan: Plan) -> None:
    """A snapshot asks for the files of its target only."""
    target = plan.manifest.target("linux/amd64")
    for name in set(plan.target_files(plan.manifest.targets)) - set(plan.target_files([target])):
        (plan.assets / name).unlink()
    gather(plan, [target], snapshot=True)
    assert "cpython" not in (plan.assets / SBOM).read_text()
