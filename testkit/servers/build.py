"""Builds the servers that the tests of this run need: `python -m testkit.servers.build`, beside something else."""

from __future__ import annotations

import sys

from testkit.servers import every, minio, versitygw
from testkit.servers.process import ServerError
from testkit.servers.source import built, cache_folder


def main() -> None:
    """Build them, one after the other."""
    for source in (minio.SOURCE, *([versitygw.SOURCE] if every.WANTED else [])):
        try:
            built(source, cache=cache_folder(), say=lambda text: print(text, flush=True))  # noqa: T201 (its output)
        except ServerError as error:
            # The tests that need it try again, and say so in their own report.
            print(error, file=sys.stderr, flush=True)  # noqa: T201 (its output)


if __name__ == "__main__":
    main()
