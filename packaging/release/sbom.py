"""What the program is made of, as a CycloneDX document."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL
from packaging.requirements import InvalidRequirement, Requirement

from release.errors import ReleaseError
from release.plan import Plan

# The lock file holds the build backend too, which installs the program and is no part of it.
BUILD_BACKEND = "flit-core"


def document(plan: Plan, *, with_interpreter: bool) -> str:
    """The SBOM as JSON: the program and every locked package that is built into it.

    In a release the CPython of release.yml is in it, and then it comes `with_interpreter`.
    """
    python = plan.manifest.build.python
    lock = plan.root.joinpath(plan.manifest.sbom.lock).read_text("utf-8")
    program = Component(
        name=plan.manifest.project,
        version=plan.version,
        type=ComponentType.APPLICATION,
        bom_ref=plan.manifest.project,
        purl=PackageURL("generic", name=plan.manifest.project, version=plan.version),
    )
    parts = [*([_interpreter(python)] if with_interpreter else []), *packages(lock, python)]
    bom = Bom(components=parts)
    bom.metadata.component = program
    bom.metadata.timestamp = datetime.fromtimestamp(plan.epoch, UTC)
    # A number of its own for each content, and the same one for the same.
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, f"{plan.manifest.project}@{plan.version}\n{plan.epoch}\n{lock}")
    bom.register_dependency(program, parts)
    text: str = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=2)
    return text + "\n"


def _interpreter(python: str) -> Component:
    return Component(
        name="cpython",
        version=python,
        type=ComponentType.PLATFORM,
        bom_ref=f"cpython@{python}",
        purl=PackageURL("generic", name="cpython", version=python),
        cpe=f"cpe:2.3:a:python:python:{python}:*:*:*:*:*:*:*",
    )


def packages(lock: str, python: str) -> Iterator[Component]:
    """The packages of a lock file that this interpreter gets on Linux.

    Raises:
        ReleaseError: a line of it names no single version.
    """
    environment = {
        "python_version": python.rpartition(".")[0],
        "python_full_version": python,
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for line in lock.splitlines():
        # Hashes and comments are indented, or begin with "#".
        if not line or line[0] in " \t#":
            continue
        name, version, applies = _pinned(line.rstrip(" \\"), environment)
        if applies and name != BUILD_BACKEND:
            purl = PackageURL("pypi", name=name.lower(), version=version)
            yield Component(name=name, version=version, type=ComponentType.LIBRARY, bom_ref=purl.to_string(), purl=purl)


def _pinned(text: str, environment: dict[str, str]) -> tuple[str, str, bool]:
    """Name and version of a locked package, and whether this environment gets it."""
    try:
        requirement = Requirement(text)
        (only,) = requirement.specifier
    except (InvalidRequirement, ValueError):
        raise ReleaseError(f"{text!r} in the lock file names no single version.") from None
    if only.operator != "==":
        raise ReleaseError(f"{text!r} in the lock file names no single version.")
    return requirement.name, only.version, requirement.marker is None or requirement.marker.evaluate(environment)
