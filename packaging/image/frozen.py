"""Says of what was frozen whether it is of the commit that is checked out: prints `yes`, `changed` or `no`.

    PYTHONPATH=packaging python -m image.frozen BUNDLE

Changes that are not committed cannot be told from one another: `changed` is of this commit and of some of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gateway.core.build_info import UNKNOWN, Version, of_checkout


def state(bundle: Path, checkout: Version) -> str:
    """`yes`, `changed` or `no`; without git there is nothing to compare with, and what is there is used."""
    try:
        frozen = json.loads((bundle / "_internal" / "gateway" / "version.json").read_bytes())
    except FileNotFoundError:
        return "no"
    if checkout.commit != UNKNOWN and (frozen["number"], frozen["commit"]) != (checkout.number, checkout.commit):
        return "no"
    return "changed" if frozen["number"].endswith(".dirty") else "yes"


if __name__ == "__main__":
    sys.stdout.write(f"{state(Path(sys.argv[1]), of_checkout(Path.cwd()))}\n")
