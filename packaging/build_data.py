"""Writes the data that is frozen with the program: its version, and the part of botocore's data that it uses.

python packaging/build_data.py FOLDER    with SOURCE_DATE_EPOCH, which becomes the date of the build
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import botocore

from gateway.core.build_info import of_checkout

CHECKOUT = Path(__file__).resolve().parents[1]

# Of more than 400 services: the store, and what a credential provider of the standard chain may call.
SERVICES = ("s3", "sts", "sso", "sso-oidc", "signin")
# The names of the same services in endpoints.json.
ENDPOINTS = frozenset({"s3", "sts", "portal.sso", "sso", "oidc", "signin"})
# Of each service; the gateway uses no paginator and no waiter.
FILES = ("service-2.json.gz", "service-2.sdk-extras.json", "endpoint-rule-set-1.json.gz")


def write_version(target: Path, built_at_s: int) -> None:
    """Write what `version` prints."""
    version = replace(of_checkout(CHECKOUT), built=f"{datetime.fromtimestamp(built_at_s, UTC):%Y-%m-%dT%H:%M:%SZ}")
    target.write_text(json.dumps(asdict(version)))


def copy_botocore(data: Path, target: Path) -> None:
    """Copy from botocore's `data` folder what is needed to an empty place, endpoints.json without the other services."""
    target.mkdir(parents=True)
    for path in data.glob("*.json"):
        shutil.copyfile(path, target / path.name)
    endpoints = target / "endpoints.json"
    endpoints.write_text(json.dumps(_only_services(json.loads(endpoints.read_bytes())), separators=(",", ":")))
    for service in SERVICES:
        (version,) = (data / service).iterdir()
        folder = target / service / version.name
        folder.mkdir(parents=True)
        for name in FILES:
            if (version / name).exists():
                shutil.copyfile(version / name, folder / name)


def _only_services(endpoints: dict[str, Any]) -> dict[str, Any]:
    for partition in endpoints["partitions"]:
        partition["services"] = {name: service for name, service in partition["services"].items() if name in ENDPOINTS}
    return endpoints


def main() -> None:
    """Make the folder anew."""
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    copy_botocore(Path(botocore.__file__).with_name("data"), folder / "botocore")
    write_version(folder / "version.json", int(os.environ["SOURCE_DATE_EPOCH"]))


if __name__ == "__main__":
    main()
