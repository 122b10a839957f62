"""Which tests a change can touch, by imports: those of the changed files, and of the files that import them.

python -m testkit.changed [--since REF] [--distance N]    the paths of test files, nearest first
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from testkit import CHECKOUT

# Where modules lie, and the folder from which their names count.
ROOTS = (("gateway", CHECKOUT), ("testkit", CHECKOUT), ("benchmarks", CHECKOUT), ("trystore", CHECKOUT))
SUITES = CHECKOUT / "tests" / "unit"
# A change of what a test imports is near, of what that imports less so; further away nearly everything is.
DISTANCE = 2


def main(arguments: list[str]) -> int:
    """Print the tests, and return 0; 1 where no test is touched."""
    parser = argparse.ArgumentParser(description="Which tests a change can touch.")
    parser.add_argument("--since", default="HEAD", metavar="REF", help="what the change is against; default: HEAD")
    parser.add_argument("--distance", type=int, default=DISTANCE, metavar="N", help=f"imports away at most; default: {DISTANCE}")
    options = parser.parse_args(arguments)
    found = touched(changed_since(options.since), options.distance)
    print("\n".join(str(path.relative_to(CHECKOUT)) for path in found))  # noqa: T201 (its output)
    return 0 if found else 1


def changed_since(ref: str) -> list[Path]:
    """The files that differ from a commit, new ones too."""
    found: set[str] = set()
    for command in (["diff", "--name-only", ref], ["ls-files", "--others", "--exclude-standard"]):
        done = subprocess.run(["git", *command], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        found |= set(done.stdout.splitlines())
    return [CHECKOUT / name for name in sorted(found)]


def touched(changed: Iterable[Path], distance: int = DISTANCE) -> list[Path]:
    """The test files that a change can touch, nearest first; a test that is changed is one of them."""
    tests = sorted(SUITES.rglob("test_*.py"))
    importers = _importers(tests)
    found: dict[Path, int] = {}
    level = {path for path in changed if path.suffix == ".py"}
    seen: set[Path] = set()
    for steps in range(distance + 1):
        for path in level:
            if path.name.startswith("test_"):
                found.setdefault(path, steps)
            found |= {test: steps for test in _of_room(path) if test not in found}
        seen |= level
        level = {importer for path in level for importer in importers[path]} - seen
    return [path for path, _ in sorted(found.items(), key=lambda each: (each[1], each[0])) if path.exists()]


def _of_room(path: Path) -> list[Path]:
    """The test of a file of the package, by its path."""
    try:
        room = path.relative_to(CHECKOUT / "gateway")
    except ValueError:
        return []
    test = SUITES / room.parent / f"test_{room.name}"
    return [test] if test.exists() else []


def _importers(tests: Iterable[Path]) -> Mapping[Path, set[Path]]:
    modules = {_name(path, root): path for folder, root in ROOTS for path in (root / folder).rglob("*.py")}
    found: dict[Path, set[Path]] = defaultdict(set)
    for path in [*modules.values(), *tests]:
        for name in _imports(path):
            if (imported := modules.get(name)) is not None:
                found[imported].add(path)
    return found


def _name(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
