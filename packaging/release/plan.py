"""What one release consists of: its version, its names, its tags."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from release.errors import ReleaseError
from release.manifest import Manifest, Target

_VERSION = re.compile(r"(?P<major>\d+)\.(?P<minor>\d+)\.(?P<patch>\d+)(?P<pre>-[0-9A-Za-z.-]+)?(?P<build>\+[0-9A-Za-z.-]+)?")


@dataclass(frozen=True)
class Plan:
    """A release of a version.

    Attributes:
        root: the checkout.
        version: `1.2.3`, `1.2.3-rc.1`, or between tags `1.2.3+5.g0123456`.
        epoch: seconds since 1970 of the commit; every time in what is made is this one.
        owner: whoever the repository belongs to, in the name of the image.
    """

    root: Path
    manifest: Manifest
    version: str
    epoch: int
    owner: str

    @property
    def out(self) -> Path:
        """The folder of all that is made."""
        return self.root / "dist" / "release"

    @property
    def assets(self) -> Path:
        """The folder of the files that are published."""
        return self.out / "assets"

    @property
    def notes(self) -> Path:
        """The draft of what is said about the release."""
        return self.out / "notes.md"

    @property
    def binary(self) -> Path:
        """The program, as scripts/build leaves it."""
        return self.root / "dist" / self.manifest.project

    @property
    def tag(self) -> str:
        """The tag in git."""
        return f"v{self.version}"

    @property
    def is_tagged(self) -> bool:
        """Whether the checkout is just what a tag names; anything else cannot be published."""
        return _parsed(self.version)["build"] is None and self.version != "0.0.0"

    @property
    def is_prerelease(self) -> bool:
        """Whether the version is one before the version that it names."""
        return _parsed(self.version)["pre"] is not None

    @property
    def sbom_name(self) -> str:
        """The file name of the SBOM."""
        return self.manifest.sbom.name.format(project=self.manifest.project, version=self.version)

    @property
    def image_name(self) -> str:
        """The name of the image without a tag; a registry takes small letters only."""
        return self.manifest.image.name.format(owner=self.owner.lower())

    @property
    def image_tags(self) -> tuple[str, ...]:
        """The tags of the image of all targets, that of the version first."""
        image, parts = self.manifest.image, _parsed(self.version)
        stable = self.is_tagged and not self.is_prerelease
        # A tag of an image holds no "+".
        names = {"version": self.version.replace("+", "-"), "major": parts["major"], "minor": parts["minor"]}
        return tuple(tag.format(**names) for tag in (*image.tags, *(image.stable_tags if stable else ())))

    def file_name(self, target: Target, ending: str) -> str:
        """The name of a file of a target: its archive, or a package."""
        fields = {"project": self.manifest.project, "version": self.version, "os": target.os, "arch": target.arch}
        return f"{self.manifest.archive.name.format(**fields)}.{ending}"

    def target_files(self, targets: Iterable[Target]) -> list[str]:
        """The names of all files that these targets give."""
        return [self.file_name(target, ending) for target in targets for ending in self.manifest.endings]

    def target_image(self, target: Target) -> str:
        """The image of one target, from which the one of all targets is joined."""
        return f"{self.image_name}:{self.image_tags[0]}-{target.arch}"

    def image_file(self, target: Target) -> Path:
        """The file that carries the image of one target from the machine that built it to the one that publishes."""
        return self.out / "images" / f"{target.os}-{target.arch}.tar"

    def require_tag(self) -> None:
        """Refuse what no tag names.

        Raises:
            ReleaseError: the checkout is ahead of a tag, or changed.
        """
        if not self.is_tagged:
            raise ReleaseError(
                f"This checkout is {self.version}, which no tag names; release a clean checkout of a tag, or use --snapshot."
            )


def _parsed(version: str) -> dict[str, str]:
    found = _VERSION.fullmatch(version)
    if found is None:
        raise ReleaseError(f"{version!r} is no version such as 1.2.3 or 1.2.3-rc.1.")
    return found.groupdict()
