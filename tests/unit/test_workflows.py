"""The workflows: what CI does can be done by hand, with scripts of this checkout, and CI may do no more than it must."""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from release.manifest_file import load
from testkit import CHECKOUT
from testkit.servers import source

FOLDER = CHECKOUT / ".github" / "workflows"
WORKFLOWS = sorted(path.name for path in FOLDER.iterdir())
every_workflow = pytest.mark.parametrize("name", WORKFLOWS)

# What a job may write, and why; every other job reads the checkout at most.
MAY_WRITE = {("release.yml", "publish"): {"attestations", "contents", "id-token", "packages"}}
BRANCHES = """contains(fromJSON('["refs/heads/develop", "refs/heads/main"]'), github.ref)"""

ACTIONLINT = "v1.7.12"

Workflow = dict[str, Any]


class _Yaml(yaml.SafeLoader):
    """YAML 1.2, in which `on` is no boolean."""


_Yaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(name: str) -> str:
    """The text of a workflow."""
    return (FOLDER / name).read_text("utf-8")


def parsed(text: str) -> Workflow:
    """A workflow as data."""
    found: Workflow = yaml.load(text, Loader=_Yaml)
    return found


# --- the rules ---------------------------------------------------------------------------------------------------


def faults(name: str, text: str) -> list[str]:
    """Tell what is wrong with a workflow, one line a fault."""
    workflow = parsed(text)
    found = [] if workflow.get("permissions") == {} else ["permissions at the top are not {}"]
    if "group" not in workflow.get("concurrency", {}):
        found.append("there is no concurrency group")
    for job_name, job in workflow["jobs"].items():
        told = [*permission_faults(name, job_name, job)]
        if "steps" in job:
            told += [] if "timeout-minutes" in job else ["no timeout"]
            told += [fault for step in job["steps"] for fault in step_faults(step)]
        elif not re.fullmatch(r"\./\.github/workflows/[\w.-]+", job["uses"]) or not (CHECKOUT / job["uses"]).is_file():
            told.append(f"{job['uses']} is no workflow of this checkout")
        found += [f"{job_name}: {fault}" for fault in told]
    return found + pin_faults(text)


def permission_faults(name: str, job_name: str, job: Workflow) -> list[str]:
    """Tell which permissions a job has that it needs not."""
    permissions = job.get("permissions")
    if not isinstance(permissions, dict):
        return [f"permissions are {permissions!r}, not one by one"]
    allowed = MAY_WRITE.get((name, job_name), set())
    return [
        f"permission {scope}: {level}"
        for scope, level in permissions.items()
        if level != "none" and (scope, level) != ("contents", "read") and not (level == "write" and scope in allowed)
    ]


def step_faults(step: Workflow) -> list[str]:
    """Tell what is wrong with a step."""
    if "uses" in step:
        if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}", step["uses"]):
            return [f"{step['uses']} is not pinned by a full SHA"]
        if step["uses"].startswith("actions/checkout@") and step.get("with", {}).get("persist-credentials") is not False:
            return ["checkout keeps the token in the checkout"]
        return []
    return [fault for line in step["run"].strip().splitlines() for fault in command_faults(line)]


def command_faults(line: str) -> list[str]:
    """Tell what is wrong with a line of a `run:`, which must be a script of this checkout with arguments, and no more."""
    if "${{" in line:
        return [f"{line!r} pastes an expression; hand it over as a variable"]
    words = list(shlex.shlex(line, posix=True, punctuation_chars=True))
    script = re.match(r"scripts/[a-z]+(?= |$)", line)
    if script is None or any(set(word) <= set("();<>|&") for word in words):
        return [f"{line!r} is not one script of this checkout"]
    path = CHECKOUT / script[0]
    if not os.access(path, os.X_OK):
        return [f"{script[0]} is not there"]
    # The head of a script tells every flag and every step that it has.
    head = "\n".join(told for told in path.read_text("utf-8").splitlines() if told.startswith("#"))
    given = [word for word in shlex.split(line)[1:] if re.fullmatch(r"--[a-z-]+|[a-z]+", word)]
    return [f"{script[0]} has no {word}" for word in given if not re.search(rf"{script[0]}[^\n]* {word}\b", head)]


def pin_faults(text: str) -> list[str]:
    """Tell which pinned actions do not say their version beside it, or have two."""
    found = [
        f"{action} does not say its version"
        for action, rest in re.findall(r"uses: ([\w.-]+/\S+@\S+)(.*)", text)
        if not re.fullmatch(r" # v\d+\.\d+\.\d+", rest)
    ]
    pins: dict[str, set[str]] = {}
    for action, pin in re.findall(r"uses: ([\w.-]+/\S+)@(.*)", text):
        pins.setdefault(action, set()).add(pin)
    return found + [f"{action} is pinned to more than one version" for action, of in pins.items() if len(of) > 1]


# --- the workflows -----------------------------------------------------------------------------------------------


@every_workflow
def test_workflow_is_sound(name: str) -> None:
    """Every step calls a script that is there, actions are pinned, permissions are the least, nothing runs without end."""
    assert faults(name, read(name)) == []


def test_actions_are_the_same_everywhere() -> None:
    """No action has one version in one workflow and another in the next."""
    assert pin_faults("\n".join(read(name) for name in WORKFLOWS)) == []


INTEGRATION = "run: scripts/test --all tests/integration"
CHECKED_OUT = "@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2"
READ = "    permissions:\n      contents: read\n"
PLANTED = [
    (INTEGRATION, "run: scripts/tests", "integration: scripts/tests is not there"),
    (INTEGRATION, "run: pytest", "integration: 'pytest' is not one script of this checkout"),
    (INTEGRATION, "run: scripts/test; curl x", "integration: 'scripts/test; curl x' is not one script of this checkout"),
    (INTEGRATION, "run: scripts/test && rm x", "integration: 'scripts/test && rm x' is not one script of this checkout"),
    (INTEGRATION, "run: scripts/test --integration", "integration: scripts/test has no --integration"),
    ("run: scripts/release --snapshot", "run: scripts/release snapshot", "snapshot: scripts/release has no snapshot"),
    (
        INTEGRATION,
        "run: scripts/test ${{ github.ref }}",
        "integration: 'scripts/test ${{ github.ref }}' pastes an expression; hand it over as a variable",
    ),
    (CHECKED_OUT, "@v6", "unit: actions/checkout@v6 is not pinned by a full SHA"),
    (CHECKED_OUT, "@de0fac2", "unit: actions/checkout@de0fac2 is not pinned by a full SHA"),
    ("5447ce83dd # v6.0.2", "5447ce83dd", "actions/checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd does not say its version"),
    ("5447ce83dd # v6.0.2", "5447ce83dd # v6.0.1", "actions/checkout is pinned to more than one version"),
    ("persist-credentials: false", "persist-credentials: true", "unit: checkout keeps the token in the checkout"),
    ("permissions: {}", "permissions: write-all", "permissions at the top are not {}"),
    ("permissions: {}\n", "", "permissions at the top are not {}"),
    (READ, "    permissions: write-all\n", "unit: permissions are 'write-all', not one by one"),
    (READ, "", "unit: permissions are None, not one by one"),
    ("      contents: read\n", "      contents: write\n", "unit: permission contents: write"),
    ("      contents: read\n", "      contents: read\n      packages: write\n", "unit: permission packages: write"),
    ("    timeout-minutes: 30\n", "", "unit: no timeout"),
    ("concurrency:", "defaults:", "there is no concurrency group"),
]


@pytest.mark.parametrize(("stands", "instead", "told"), PLANTED, ids=[told for _, _, told in PLANTED])
def test_a_planted_fault_is_told(stands: str, instead: str, told: str) -> None:
    """A workflow with a missing script, a loose action or a permission too many is found out."""
    text = read("test.yml")
    assert stands in text
    assert told in faults("test.yml", text.replace(stands, instead, 1))


def test_a_missing_workflow_is_told() -> None:
    """A job that is a workflow of its own must be one that is there."""
    text = read("release.yml").replace("./.github/workflows/test.yml", "./.github/workflows/tests.yml")
    assert faults("release.yml", text) == ["test: ./.github/workflows/tests.yml is no workflow of this checkout"]


# --- what they do ------------------------------------------------------------------------------------------------


def test_which_tests_run_where() -> None:
    """Unit tests run on every branch, integration tests on develop and main and for a release, each on every CPython."""
    workflow = parsed(read("test.yml"))
    unit, integration, snapshot = (workflow["jobs"][name] for name in ("unit", "integration", "snapshot"))
    assert workflow["on"]["push"] == {"branches": ["**"]}
    assert "if" not in unit
    assert integration["if"] == f"{BRANCHES} || startsWith(github.ref, 'refs/tags/v')"
    assert snapshot["if"] == BRANCHES
    for job in (unit, integration):
        assert job["strategy"]["matrix"] == {"python": ["3.11", "3.12", "3.13"]}
        # Without it scripts/setup takes the newest CPython of the runner, whichever the matrix says.
        assert job["env"] == {"GATEWAY_PYTHON": "python${{ matrix.python }}"}


def test_every_supported_python_is_tested() -> None:
    """The matrix has just the versions that pyproject.toml allows."""
    assert 'requires-python = ">=3.11,<3.14"' in (CHECKOUT / "pyproject.toml").read_text()


def test_releases_are_made_of_tags() -> None:
    """Only a tag of a version starts a release, and nothing stops it half-way."""
    workflow = parsed(read("release.yml"))
    assert workflow["on"] == {"push": {"tags": ["v*"]}}
    assert workflow["concurrency"]["cancel-in-progress"] is False


def test_groups_do_not_meet() -> None:
    """A workflow that another one calls waits for a group of its own, or each would wait for the other."""
    groups = [parsed(read(name))["concurrency"]["group"] for name in WORKFLOWS]
    assert len(set(groups)) == len(WORKFLOWS)
    assert all(group == f"{Path(name).stem}-${{{{ github.ref }}}}" for name, group in zip(WORKFLOWS, groups, strict=True))


def test_targets_are_those_of_release_yml() -> None:
    """Each target that release.yml declares is built, on the runner that it names, and no other."""
    built = parsed(read("release.yml"))["jobs"]["build"]["strategy"]["matrix"]["include"]
    declared = [{"platform": target.platform, "runner": target.runner} for target in load(CHECKOUT).targets]
    assert built == declared


def test_a_release_is_tested_built_tried_and_published() -> None:
    """Nothing is built before it is tested, nor published before it is built and tried; what is published is attested."""
    jobs = parsed(read("release.yml"))["jobs"]
    assert [jobs[name].get("needs") for name in ("test", "build", "publish")] == [None, "test", "build"]
    assert [step["run"] for step in jobs["build"]["steps"] if "run" in step] == [
        'scripts/release build --target "$PLATFORM"',
        "scripts/release smoke",
    ]
    steps = [step.get("run") or step["uses"].partition("@")[0] for step in jobs["publish"]["steps"]]
    assert steps[-4:] == [
        "scripts/release gather",
        "actions/attest-build-provenance",
        "scripts/release publish",
        "actions/attest-build-provenance",
    ]


def test_versions_are_told_by_tags() -> None:
    """Wherever a program is made, the checkout has its history, or the version would be 0.0.0."""
    for name in WORKFLOWS:
        for job in parsed(read(name))["jobs"].values():
            checkouts = [step for step in job.get("steps", []) if step.get("uses", "").startswith("actions/checkout@")]
            assert [step["with"]["fetch-depth"] for step in checkouts] == [0] * ("steps" in job)


# --- actionlint --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def actionlint() -> Path:
    """Give actionlint, built from source the first time: its package on PyPI has none in it, and would download it."""
    cache = source.cache_folder()
    built = cache / f"actionlint-{ACTIONLINT}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "actionlint.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.access(built, os.X_OK):
            scratch = cache / "build-actionlint"
            environment = {"CGO_ENABLED": "0", "GOBIN": str(scratch), "GOTOOLCHAIN": "local"}
            module = f"github.com/rhysd/actionlint/cmd/actionlint@{ACTIONLINT}"
            source.run([source.go(cache, lambda _: None), "install", module], environment)
            # The rename comes last: an interrupted build leaves no file that looks like actionlint.
            (scratch / "actionlint").replace(built)
            scratch.rmdir()
    return built


def lint(actionlint: Path, path: Path) -> subprocess.CompletedProcess[str]:
    """Lint a workflow, with what actionlint itself knows."""
    # It would also call these two where they are installed, so that a fault would depend on the machine.
    command = [str(actionlint), "-no-color", "-shellcheck=", "-pyflakes=", str(path)]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


@every_workflow
def test_actionlint_is_clean(actionlint: Path, name: str) -> None:
    """Actionlint finds nothing."""
    done = lint(actionlint, FOLDER / name)
    assert (done.returncode, done.stdout) == (0, "")


def test_actionlint_finds_faults(actionlint: Path, tmp_path: Path) -> None:
    """Actionlint does look: a job that needs another which is not there is found."""
    planted = tmp_path / "planted.yml"
    planted.write_text(read("release.yml").replace("needs: build", "needs: built"))
    done = lint(actionlint, planted)
    assert done.returncode == 1
    assert 'needs job "built" which does not exist' in done.stdout
