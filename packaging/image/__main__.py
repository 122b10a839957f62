"""Writes the root file system of the image, and beside it what the image is to say of itself.

    PYTHONPATH=packaging python -m image BUNDLE FOLDER    with SOURCE_DATE_EPOCH, the time that all files get

`FOLDER/labels` then holds a label a line, as `docker build --label` takes them.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from image.libraries import ImageError
from image.rootfs import Made, make


def labels(made: Made, source: str) -> list[str]:
    """The labels that change from image to image; those that never do stand in the Dockerfile."""
    told = {"version": made.version, "revision": made.commit, "created": made.built, "source": source}
    return [f"org.opencontainers.image.{name}={value}" for name, value in told.items() if value]


def main() -> int:
    """Make it, and return the exit code."""
    bundle, folder = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        made = make(bundle, folder, int(os.environ["SOURCE_DATE_EPOCH"]))
    except ImageError as error:
        sys.stderr.write("".join(f"image: {line}\n" for line in str(error).splitlines()))
        return 1
    (folder / "labels").write_text("".join(f"{line}\n" for line in labels(made, os.environ.get("IMAGE_SOURCE", ""))))
    (folder / "architecture").write_text(f"{made.architecture}\n")
    sys.stderr.write(f"image: {made.archive} ({made.archive.stat().st_size // 1000} kB), certificates of {made.certificates}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
