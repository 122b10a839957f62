"""What is made of all targets together: the SBOM, the notes and the checksums."""

from __future__ import annotations

from collections.abc import Iterable

from release import changelog, sbom
from release.checksums import write_checksums
from release.errors import ReleaseError
from release.manifest import Target
from release.plan import Plan


def gather(plan: Plan, targets: Iterable[Target], *, snapshot: bool) -> None:
    """Write SBOM and checksums beside the files of the targets, and the draft of the notes.

    Raises:
        ReleaseError: a file of a target is not there, or one of something else is.
    """
    wanted = set(plan.target_files(targets))
    made = {plan.sbom_name, plan.manifest.checksums.name}
    there = {path.name for path in plan.assets.glob("*")}
    if missing := sorted(name for name in wanted if not (plan.assets / name).is_file()):
        raise ReleaseError("\n".join(f"{name} is not in {plan.assets}; build its target first." for name in missing))
    # All that is there is published, what an earlier version left too.
    if strange := sorted(there - wanted - made):
        raise ReleaseError("\n".join(f"{name} in {plan.assets} is no file of {plan.version}; remove it." for name in strange))
    plan.assets.joinpath(plan.sbom_name).write_text(sbom.document(plan, with_interpreter=not snapshot), "utf-8")
    plan.notes.write_text(changelog.draft(plan), "utf-8")
    # Last, since it tells of all others.
    write_checksums(plan.assets, plan.manifest.checksums.name)
