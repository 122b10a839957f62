"""The root file system of the image: the program, what it needs of glibc, and the few files that a machine has."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from pathlib import Path

from image.libraries import ImageError, architecture, system_of
from image.tree import Tree

PROGRAM = "lightfile6-insights-gateway"
HOME = f"/opt/{PROGRAM}"
DATA = f"/var/lib/{PROGRAM}"
# A number that no distribution gives to anybody, and that images without a shell often take.
USER_ID = 65532

PASSWD = (
    f"root:x:0:0:root:/:/sbin/nologin\nlightfile6:x:{USER_ID}:{USER_ID}:Lightfile6 Insights Gateway:/nonexistent:/sbin/nologin\n"
)
GROUP = f"root:x:0:\nlightfile6:x:{USER_ID}:\n"
# Without it glibc asks the network before /etc/hosts.
NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"

# Where the program looks, which is where Debian has it.
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
SYSTEM_CERTIFICATES = (
    Path(CERTIFICATES),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
)


@dataclass(frozen=True)
class Made:
    """A root file system that was written.

    Attributes:
        archive: the tar file.
        architecture: as Docker names it: `amd64`.
        version, commit, built: what the program in it says of itself.
        certificates: the file of certificate authorities that went into it.
    """

    archive: Path
    architecture: str
    version: str
    commit: str
    built: str
    certificates: Path


def make(bundle: Path, folder: Path, epoch_s: int, *, certificates: tuple[Path, ...] = SYSTEM_CERTIFICATES) -> Made:
    """Write `rootfs-<architecture>.tar` into a folder.

    Args:
        bundle: the unpacked program, as `scripts/build` leaves it below `dist/onedir`.
        folder: where the archive goes.
        epoch_s: the time that everything in it gets.
        certificates: the files of certificate authorities, of which the first that is there is taken.

    Raises:
        ImageError: something that belongs into it is missing.
    """
    program, internal = bundle / PROGRAM, bundle / "_internal"
    if not program.is_file():
        raise ImageError(f"there is no {program}: run scripts/build first")
    about = json.loads((internal / "gateway" / "version.json").read_bytes())
    tree = Tree(epoch_s)
    tree.add_all(bundle, HOME)
    _add_system(tree, bundle, internal)
    chosen = _certificates((*certificates, internal / "botocore" / "cacert.pem"))
    tree.add_file(CERTIFICATES, chosen.read_bytes())
    tree.add_file("/etc/passwd", PASSWD.encode())
    tree.add_file("/etc/group", GROUP.encode())
    tree.add_file("/etc/nsswitch.conf", NSSWITCH.encode())
    # A new volume takes owner and permissions from the folder over which it is mounted.
    tree.add_folder(DATA, mode=0o700, owner=USER_ID)
    tree.add_folder("/tmp", mode=stat.S_ISVTX | 0o777)  # noqa: S108 (a folder of the image, not of this machine)
    made = folder / f"rootfs-{architecture(program)}.tar"
    tree.write(made)
    return Made(made, architecture(program), about["number"], about["commit"], about["built"], chosen)


def _add_system(tree: Tree, bundle: Path, internal: Path) -> None:
    system = system_of(bundle, internal)
    tree.add_file(str(system.interpreter), system.interpreter.read_bytes(), mode=0o755)
    for name, path in system.libraries.items():
        # All into the folder of libc: the loader of the image has no cache that would lead it anywhere else.
        tree.add_file(str(system.folder / name), path.read_bytes(), mode=0o755)


def _certificates(candidates: tuple[Path, ...]) -> Path:
    for path in candidates:
        if path.is_file():
            return path
    raise ImageError(f"no certificate authorities: none of {', '.join(map(str, candidates))} is here")
