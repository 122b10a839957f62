"""Packages import downward only, and only one room changes names on the disk."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import gateway

PACKAGE = Path(gateway.__file__).parent
CHECKOUT = PACKAGE.parent

OS_CHANGES = {
    *("rename", "renames", "replace", "link", "symlink", "unlink", "remove", "rmdir", "removedirs", "mkdir", "makedirs"),
    *("fsync", "fdatasync", "sync", "truncate", "ftruncate", "write", "writev", "pwrite", "pwritev", "sendfile"),
    *("copy_file_range", "posix_fallocate", "mkfifo", "mknod"),
}
PATH_CHANGES = {
    *("rename", "unlink", "rmdir", "mkdir", "symlink_to", "hardlink_to", "link_to", "touch", "write_bytes", "write_text"),
}
# The log writes to a descriptor that was given to it, the handler of early signals to STDERR, the HTTP client to the store; the
# counters are memory.
WRITERS = {
    "core.disk": OS_CHANGES | PATH_CHANGES | {"replace"},
    "telemetry.log": {"write"},
    "cli.main": {"write"},
    "core.shared_counters": {"ftruncate"},
    "aws.session": {"write_bytes"},
}


def rooms() -> list[str]:
    """Give the names of all rooms, a package as its own name."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if name:
            found.append(name)
    return found


def source(room: str) -> ast.Module:
    """Give the syntax tree of a room."""
    path = PACKAGE.joinpath(*room.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_bytes())


def contracts(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of pyproject.toml on the package of a checkout."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", str(CHECKOUT / "pyproject.toml")]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, check=False)


def test_imports_keep_the_contracts() -> None:
    """Imports point down, receiving and delivering meet in the spool alone, and no package has a circle."""
    done = contracts(CHECKOUT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("room", "line", "contract"),
    [
        ("core/errors", "from gateway.web import handlers", "Imports point down"),
        ("admission/memory", "from gateway.batching import aggregate", "meet in the spool alone"),
        ("spool/names", "from gateway.spool import spool", "No circles"),
        ("spool/names", "from gateway.newcomer import anything", "Imports point down"),
    ],
)
def test_a_broken_contract_is_seen(tmp_path: Path, room: str, line: str, contract: str) -> None:
    """An import that points up or across, one that closes a circle, and a package without a layer are found."""
    shutil.copytree(PACKAGE, tmp_path / "gateway", ignore=shutil.ignore_patterns("__pycache__"))
    if "newcomer" in line:
        (tmp_path / "gateway" / "newcomer").mkdir()
        (tmp_path / "gateway" / "newcomer" / "__init__.py").touch()
        (tmp_path / "gateway" / "newcomer" / "anything.py").touch()
    with (tmp_path / "gateway" / f"{room}.py").open("a") as file:
        file.write(f"\n{line}\n")
    done = contracts(tmp_path)
    broken = [each for each in done.stdout.splitlines() if " BROKEN" in each]
    assert done.returncode != 0
    assert any(contract in each for each in broken), done.stdout


def test_no_import_is_relative() -> None:
    """A relative import hides where it points."""
    for room in rooms():
        for node in ast.walk(source(room)):
            assert not (isinstance(node, ast.ImportFrom) and node.level), room


def test_rooms_are_imported_by_their_names_alone() -> None:
    """Nothing is imported by a name that is made at run time, which a frozen binary could not follow."""
    for room in rooms():
        for node in ast.walk(source(room)):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("__import__", "importlib.import_module", "import_module"), room


# --- changes of the disk -----------------------------------------------------------------------------------------


def _opens_for_writing(node: ast.Call) -> bool:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name not in ("open", "fdopen"):
        return False
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    if isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "os":
        return any("O_WRONLY" in ast.unparse(one) or "O_RDWR" in ast.unparse(one) for one in given)
    texts = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return any(set(text) <= set("rwaxbt+") and set(text) & set("wax+") for text in texts)


def change(node: ast.AST) -> str | None:
    """Give the name under which a call changes the disk, or None for any other piece of syntax."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        named = {alias.name for alias in node.names} | {getattr(node, "module", None)}
        if "shutil" in named or (isinstance(node, ast.ImportFrom) and node.module == "os" and named & OS_CHANGES):
            return "import"
        return None
    if not isinstance(node, ast.Call):
        return None
    if _opens_for_writing(node):
        return "open"
    if not isinstance(node.func, ast.Attribute):
        return None
    receiver, name = ast.unparse(node.func.value), node.func.attr
    if receiver == "os":
        return name if name in OS_CHANGES else None
    if receiver == "disk" or receiver.endswith(".disk"):
        return None
    # Path.replace takes one argument, str.replace two or more, dataclasses.replace keywords.
    if name == "replace" and len(node.args) == 1 and not node.keywords:
        return name
    return name if name in PATH_CHANGES else None


@pytest.mark.parametrize("room", rooms())
def test_only_disk_changes_the_disk(room: str) -> None:
    """Files and names are written, synced, renamed and removed in `core/disk.py` alone."""
    allowed = WRITERS.get(room, set()) | ({"open"} if room in ("core.disk", "telemetry.log") else set())
    found = [(change(node), getattr(node, "lineno", 0)) for node in ast.walk(source(room))]
    forbidden = [f"{room}.py:{line} {name}" for name, line in found if name is not None and name not in allowed]
    assert not forbidden


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("os.rename(a, b)", "rename"),
        ("path.rename(b)", "rename"),
        ("path.replace(b)", "replace"),
        ("os.fdatasync(3)", "fdatasync"),
        ("path.unlink(missing_ok=True)", "unlink"),
        ("open(path, 'wb')", "open"),
        ("path.open('a')", "open"),
        ("os.open(path, os.O_RDONLY | os.O_WRONLY)", "open"),
        ("path.write_bytes(b'')", "write_bytes"),
        ("import shutil", "import"),
        ("from os import replace", "import"),
        ("disk.replace(a, b)", None),
        ("text.replace('a', 'b')", None),
        ("path.open('rb', buffering=0)", None),
        ("replace(record, size=1)", None),
        ("os.open(path, os.O_RDONLY)", None),
        ("items.remove(a)", None),
    ],
)
def test_changes_are_recognized(code: str, name: str | None) -> None:
    """The reader of calls tells what changes the disk from what only has the same name."""
    found = [change(node) for node in ast.walk(ast.parse(code))]
    assert [one for one in found if one] == ([] if name is None else [name])
