"""What a release is declared to be: release.yml as frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from gateway.config.records import nearest
from gateway.config.values import Kind, text
from release.errors import ReleaseError

FILE = "release.yml"


def must(pattern: str, wants: str) -> Kind:
    """A text that matches the whole pattern, which `wants` says in words."""
    return text(wants, pattern)


InCheckout = Annotated[str, must(r"(?!/)(?!.*\.\.)[\w./-]+", "a path inside the checkout")]


@dataclass(frozen=True)
class Build:
    """How the programs are built.

    Attributes:
        python: the CPython that goes into them.
        glibc: the newest version of glibc that they may ask for.
    """

    python: Annotated[str, must(r"3\.1[123]\.\d+", "a full version of CPython, such as 3.13.1")]
    glibc: Annotated[str, must(r"2\.\d+", "a version of glibc, such as 2.28")]


@dataclass(frozen=True)
class Target:
    """A machine that the program is made for.

    Attributes:
        platform: as Docker writes it.
        runner: the machine of the CI that builds it natively.
        container: the image in which it is built there, whose glibc is old.
    """

    platform: Annotated[str, must(r"linux/(amd64|arm64)", "linux/amd64 or linux/arm64")]
    runner: Annotated[str, must(r"[a-z0-9.-]+", "the label of a runner, such as ubuntu-24.04")]
    container: Annotated[str, must(r"[a-z0-9./_-]+:[\w.-]+(@sha256:[0-9a-f]{64})?", "an image with its tag, such as almalinux:8")]

    @property
    def os(self) -> str:
        """The operating system: `linux`."""
        return self.platform.partition("/")[0]

    @property
    def arch(self) -> str:
        """The architecture, as Docker and Debian name it: `amd64`."""
        return self.platform.partition("/")[2]


@dataclass(frozen=True)
class Archive:
    """The tar.gz of a target: the program and these files, in a folder of the archive's name."""

    name: Annotated[str, must(r"[\w.{}-]+", "a name without its extension")]
    files: tuple[InCheckout, ...]


@dataclass(frozen=True)
class Package:
    """A package for the packaging system of a distribution."""

    format: Annotated[str, must("deb", "deb")]


@dataclass(frozen=True)
class Checksums:
    """The file with the SHA-256 of all others."""

    name: Annotated[str, must(r"[\w.-]+", "a file name")]


@dataclass(frozen=True)
class Sbom:
    """The list of what the program is made of, in CycloneDX.

    Attributes:
        lock: the file with the packages that are built into it.
    """

    name: Annotated[str, must(r"[\w.{}-]+\.cdx\.json", "a file name that ends in .cdx.json")]
    lock: InCheckout


@dataclass(frozen=True)
class Image:
    """The container image of all targets.

    Attributes:
        name: without a tag; `{owner}` is whoever the repository belongs to.
        tags: those of every version.
        stable_tags: those that a pre-release does not get.
    """

    name: Annotated[str, must(r"[a-z0-9./{}-]+", "the name of an image in small letters")]
    tags: tuple[Annotated[str, must(r"[\w.{}-]+", "a tag")], ...]
    stable_tags: tuple[Annotated[str, must(r"[\w.{}-]+", "a tag")], ...]


@dataclass(frozen=True)
class Group:
    """Commits that stand together in the draft; each goes to the first group whose pattern its subject holds."""

    title: str
    pattern: str


@dataclass(frozen=True)
class Changelog:
    """How the notes of a release are drafted.

    Attributes:
        file: the changelog that people write.
        section: the heading in it of what is not released yet.
        exclude: patterns of subjects that are left out.
    """

    file: InCheckout
    section: str
    exclude: tuple[str, ...]
    groups: tuple[Group, ...]


@dataclass(frozen=True)
class Smoke:
    """Where the programs are tried before they are published: images of distributions, the oldest ones too."""

    distributions: tuple[Annotated[str, must(r"[a-z0-9./_-]+:[\w.-]+", "an image with its tag, such as debian:11")], ...]


@dataclass(frozen=True)
class Manifest:
    """All of release.yml."""

    project: Annotated[str, must(r"[a-z0-9-]+", "a name in small letters")]
    build: Build
    targets: tuple[Target, ...]
    archive: Archive
    packages: tuple[Package, ...]
    checksums: Checksums
    sbom: Sbom
    image: Image
    changelog: Changelog
    smoke: Smoke

    @property
    def endings(self) -> tuple[str, ...]:
        """The kinds of files that each target gives: `tar.gz`, `deb`."""
        return ("tar.gz", *(package.format for package in self.packages))

    def target(self, platform: str) -> Target:
        """The target of a platform.

        Raises:
            ReleaseError: there is none.
        """
        for target in self.targets:
            if target.platform == platform:
                return target
        known = [target.platform for target in self.targets]
        raise ReleaseError(f"{platform} is no target of {FILE}{nearest(platform, known)}; it has {', '.join(known)}.")
