"""Plants single faults in one file of the gateway, and says which of them its tests do not see.

python -m testkit.mutate ROOM [--count N] [--seed S] [PATH OF A TEST …]    ROOM: spool/journal, or gateway/spool/journal.py

Each fault is planted in a copy of the checkout: a comparison turned, a condition negated, a constant changed, a statement
left out. What the tests of the room do not see either changes nothing that matters, or is where no test looks.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from testkit import CHECKOUT
from testkit.changed import touched

COUNT = 20
DEADLINE_S = 300
_TURNED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}

# What is changed, where, and how.
Fault = tuple[str, int, Callable[[], None]]


def main(arguments: list[str]) -> int:
    """Try the faults; return 0 if all are seen, 1 if not, 2 if there is nothing to try."""
    parser = argparse.ArgumentParser(description="Which single faults in a file do its tests not see?")
    parser.add_argument("room", help="a file of the gateway, such as spool/journal")
    parser.add_argument("tests", nargs="*", type=Path, help="default: the tests of the room, and those that import it")
    parser.add_argument("--count", type=int, default=COUNT, help=f"how many faults, picked at random; default: {COUNT}")
    parser.add_argument("--seed", type=int, default=None, help="picks the same ones again")
    options = parser.parse_intermixed_args(arguments)
    path = Path("gateway", options.room.removeprefix("gateway/").removesuffix(".py") + ".py")
    if not (CHECKOUT / path).is_file():
        return _fail(f"there is no {path}")
    tests = options.tests or [test.relative_to(CHECKOUT) for test in touched([CHECKOUT / path], distance=1)]
    if not tests:
        return _fail(f"no test imports {path}; name one")
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    _say(f"{path}, seed {seed}, tests: {' '.join(map(str, tests))}")
    with tempfile.TemporaryDirectory(prefix="mutate.") as folder:
        return _try(Path(folder, "checkout"), path, tests, random.Random(seed), options.count)


def _try(root: Path, path: Path, tests: list[Path], chance: random.Random, count: int) -> int:
    ignored = shutil.ignore_patterns(".git", ".venv*", "build", "dist", "__pycache__", ".cache", ".hypothesis")
    shutil.copytree(CHECKOUT, root, ignore=ignored)
    sound = (CHECKOUT / path).read_text("utf-8")
    if not _passes(root, tests):
        return _fail("the tests fail without a fault")
    numbers = list(range(len(list(faults_of(ast.parse(sound))))))
    picked = sorted(chance.sample(numbers, min(count, len(numbers))))
    unseen = 0
    for number in picked:
        what, text = planted(sound, number)
        (root / path).write_text(text, "utf-8")
        is_seen = not _passes(root, tests)
        unseen += not is_seen
        _say(f"{'seen  ' if is_seen else 'UNSEEN'} {path}:{what}")
    _say(f"{len(picked)} of {len(numbers)} faults tried, {unseen} not seen")
    return int(unseen > 0)


def planted(source: str, number: int) -> tuple[str, str]:
    """The source with one of its faults, and what that is: a line and words."""
    tree = ast.parse(source)
    what, line, change = list(faults_of(tree))[number]
    change()
    return f"{line} {what}", ast.unparse(ast.fix_missing_locations(tree)) + "\n"


def faults_of(tree: ast.Module) -> Iterator[Fault]:
    """The single faults that a file can have, always in the same order."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and (turned := _TURNED.get(type(node.ops[0]))) is not None:
            yield f"{ast.unparse(node)}: the comparison is turned", node.lineno, _set_first(node.ops, turned())
        if isinstance(node, ast.If | ast.While) and not isinstance(node.test, ast.Constant):
            yield f"{ast.unparse(node.test)}: negated", node.lineno, _negate(node)
        if isinstance(node, ast.BoolOp):
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield f"{ast.unparse(node)}: and is or", node.lineno, _set(node, "op", other)
        if isinstance(node, ast.Constant) and isinstance(node.value, bool | int):
            value = not node.value if isinstance(node.value, bool) else node.value + 1
            yield f"{node.value} is {value}", node.lineno, _set(node, "value", value)
        for body in (getattr(node, name, None) for name in ("body", "orelse", "finalbody")):
            if isinstance(body, list):
                yield from _left_out(body)


def _left_out(body: list[ast.stmt]) -> Iterator[Fault]:
    for at, statement in enumerate(body):
        is_call = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call | ast.Await)
        if is_call or isinstance(statement, ast.AugAssign | ast.Raise | ast.Return):
            text = ast.unparse(statement).splitlines()[0]
            yield f"{text}: left out", statement.lineno, _set_at(body, at, ast.Pass())


def _set(node: ast.AST, name: str, value: object) -> Callable[[], None]:
    return lambda: setattr(node, name, value)


def _set_first(items: list[ast.cmpop], value: ast.cmpop) -> Callable[[], None]:
    return lambda: items.__setitem__(0, value)


def _set_at(body: list[ast.stmt], at: int, value: ast.stmt) -> Callable[[], None]:
    return lambda: body.__setitem__(at, value)


def _negate(node: ast.If | ast.While) -> Callable[[], None]:
    return lambda: setattr(node, "test", ast.UnaryOp(ast.Not(), copy.deepcopy(node.test)))


def _passes(root: Path, tests: list[Path]) -> bool:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *map(str, tests)]
    # Ahead of the checkout's own package, which is installed; and what a test starts is what is tried.
    environment = {**os.environ, "PYTHONPATH": str(root), "GATEWAY_TEST_EXECUTABLE": f"{sys.executable} -m gateway"}
    try:
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, timeout=DEADLINE_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 (its output)


def _fail(text: str) -> int:
    print(f"mutate: {text}", file=sys.stderr)  # noqa: T201 (its output)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
