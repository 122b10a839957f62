"""The command line of the planted bugs: puts each into a copy of the gateway, and demands that its row does not hold.

A bug is a patch in `planted_bugs/`, whose first lines say what is wrong then, which row has to see it, and with which share
of its tries.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from reliability.alone import run_alone, say
from reliability.row import Row
from reliability.rows import ROWS
from reliability.table import put_between, table_of
from testkit import CHECKOUT, PYTHON_PATH

FOLDER = CHECKOUT / "build" / "planted-bugs"
PATCHES = Path(__file__).with_name("planted_bugs")
HEAD = ("planted bug", "caught by", "tried", "lost", "doubled", "first fault")


@dataclass(frozen=True)
class Bug:
    """One patch."""

    patch: Path
    said: str
    row: Row
    share: float


def bugs() -> list[Bug]:
    """All that there are, by name."""
    return [_read(patch) for patch in sorted(PATCHES.glob("*.patch"))]


def _read(patch: Path) -> Bug:
    head = dict(line.split(": ", 1) for line in patch.read_text().partition("\n\n")[0].splitlines())
    return Bug(patch, head["Bug"], next(row for row in ROWS if row.name == head["Row"]), float(head["Share"]))


def plant(bug: Bug, folder: Path) -> None:
    """Copy the package into a folder and put the bug in; CalledProcessError if the text that it changes is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(CHECKOUT / "gateway", folder / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    # Without a repository around it, git takes the paths of a patch as they are.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    subprocess.run(["git", "apply", str(bug.patch)], cwd=folder, env=environment, check=True)


def main() -> int:
    """Try the bugs that were asked for; return 1 if one was not seen."""
    parser = argparse.ArgumentParser(prog="scripts/crash-matrix planted", description="Plants bugs that the matrix has to see.")
    parser.add_argument("bugs", nargs="*", metavar="bug", help="names of patches in tests/reliability/planted_bugs; default: all")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this document, between its marks")
    options = parser.parse_args()
    wanted = [bug for bug in bugs() if not options.bugs or bug.patch.stem in options.bugs]
    lines, unseen = [], []
    for bug in wanted:
        line, is_seen = _try(bug)
        lines.append(line)
        if not is_seen:
            unseen.append(bug.patch.stem)
    table = table_of(HEAD, lines, texts=(0, 1, 5))
    print(table)
    if options.write:
        put_between(options.write, "the table of planted bugs", table)
    if unseen:
        say(f"not seen: {', '.join(unseen)}")
    return int(bool(unseen))


def _try(bug: Bug) -> tuple[list[str], bool]:
    say(f"--- {bug.patch.stem}: {bug.said}")
    folder = FOLDER / bug.patch.stem
    plant(bug, folder)
    # Ahead of the checkout, whose package is the sound one.
    os.environ["PYTHONPATH"] = os.pathsep.join((str(folder), PYTHON_PATH))
    os.environ["GATEWAY_TEST_EXECUTABLE"] = f"{sys.executable} -m gateway"
    result = run_alone(bug.row, folder / "row", bug.share)
    what = f"{bug.said} (`{bug.patch.stem}`)"
    if "cannot" in result:
        return [what, f"`{bug.row.name}`", "", "", "", f"cannot be tried here: {result['cannot']}"], False
    figures = [f"{result[column]:,}" for column in ("tried", "lost", "doubled")]
    is_seen = bool(result["faults"])
    return [what, f"`{bug.row.name}`", *figures, brief(result["faults"][0]) if is_seen else "**nothing**"], is_seen


def brief(fault: str) -> str:
    """What a fault says, in one line for a table: without the example, and without where the row worked."""
    line = re.sub(r",? b'.*$| for one$", "", fault.splitlines()[0])
    return re.sub(r"/\S*/", "…/", line).replace("|", "\\|")[:120]


if __name__ == "__main__":
    sys.exit(main())
