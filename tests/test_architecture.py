"""The rooms import downward only, and only one of them changes names on the disk."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import gateway

PACKAGE = Path(gateway.__file__).parent
# From the highest to the lowest: a room imports from its own layer or from those below.
LAYERS = (
    (
        "edge",
        """
        __main__ cli inherited activation arguments commands checkconfig serviceenv healthcheck service workers
        workerprocess worker channel receiving sending accepting listening unixsocket handshakes web answers requesthead
        connection framing fastlane plainhead headcheck identify guard intake bodyreader largebody
        """,
    ),
    ("work", "delivery throttling numbering batching aggregate gzipmember packing parcels drafts"),
    (
        "stores",
        """
        stores stores.local stores.s3 stores.s3_uploads stores.s3_calls stores.s3_client stores.s3_session stores.s3_evidence
        stores.s3_errors stores.silence stores.file_slice stores.proxies
        """,
    ),
    (
        "disk",
        """
        recovery adoption adopted_reports goedition journal writefault diskroom
        spool ballast keynumbers census quarantine layout holding cachedir sidecar tallies unsettled disk
        """,
    ),
    (
        "ground",
        """
        names timestamps streams routes units retry errors metrics series board tls version
        config configdraft configfile configload configprint
        log clockwatch events repeated logline librarylog tasks threads descriptors memory buffers pace
        rarebytes jsontext jsongrammar reportlines documents content parameters formparser forms
        """,
    ),
)
HEIGHT = {room: -depth for depth, (_, rooms) in enumerate(LAYERS) for room in rooms.split()}
RECEIVING = {
    *(
        "worker",
        "channel",
        "accepting",
        "receiving",
        "web",
        "answers",
        "requesthead",
        "connection",
        "framing",
        "handshakes",
        "headcheck",
        "identify",
        "fastlane",
        "plainhead",
        "intake",
        "bodyreader",
        "buffers",
        "memory",
        "pace",
        "diskroom",
        "writefault",
        "largebody",
    ),
}
SENDING = {"sending", "delivery", "throttling", "numbering", "batching", "aggregate", "gzipmember", "packing", "parcels"} | {
    room for room in HEIGHT if room.startswith("stores")
}

OS_CHANGES = {
    *("rename", "renames", "replace", "link", "symlink", "unlink", "remove", "rmdir", "removedirs", "mkdir", "makedirs"),
    *("fsync", "fdatasync", "sync", "truncate", "ftruncate", "write", "writev", "pwrite", "pwritev", "sendfile"),
    *("copy_file_range", "posix_fallocate", "mkfifo", "mknod"),
}
PATH_CHANGES = {
    *("rename", "unlink", "rmdir", "mkdir", "symlink_to", "hardlink_to", "link_to", "touch", "write_bytes", "write_text"),
}
# The log writes to a descriptor that was given to it, the handler of early signals to STDERR, the HTTP client to the store; the
# board is memory.
WRITERS = {
    "disk": OS_CHANGES | PATH_CHANGES | {"replace"},
    "log": {"write"},
    "cli": {"write"},
    "board": {"ftruncate"},
    "stores.s3_session": {"write_bytes"},
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


def imports(room: str) -> set[str]:
    """Give the rooms that a room imports, wherever in it the import stands."""
    found: set[str] = set()
    for node in ast.walk(source(room)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{room}: a relative import hides where it points"
            module = node.module or ""
            # `from gateway import disk` names a room only by what is imported.
            found |= {module} | {f"{module}.{alias.name}" for alias in node.names}
    known = set(HEIGHT)
    return {name.removeprefix("gateway.") for name in found if name.removeprefix("gateway.") in known and name != room}


@pytest.mark.parametrize("room", rooms())
def test_every_room_has_a_layer(room: str) -> None:
    """A new file is given its layer in the table above."""
    assert room in HEIGHT


@pytest.mark.parametrize("room", [room for room in rooms() if room in HEIGHT])
def test_imports_point_down(room: str) -> None:
    """A room imports from its own layer or from those below it."""
    upward = {other for other in imports(room) if HEIGHT[other] > HEIGHT[room]}
    assert not upward, f"{room} imports {upward} from above"


def test_receiving_and_sending_meet_only_in_the_spool() -> None:
    """What receives knows nothing of what sends, and the other way round."""
    for room in RECEIVING:
        assert not imports(room) & SENDING, room
    for room in SENDING & set(rooms()):
        assert not imports(room) & (RECEIVING | {"guard", "drafts", "content"}), room


def test_every_import_of_a_room_is_seen() -> None:
    """The reader of imports sees each of the ways in which rooms are imported."""
    assert {"disk", "names"} <= imports("spool")
    assert "stores" in imports("delivery")
    assert "config" in imports("streams")


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
    """Files and names are written, synced, renamed and removed in `disk.py` alone."""
    allowed = WRITERS.get(room, set()) | ({"open"} if room in ("disk", "log") else set())
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
