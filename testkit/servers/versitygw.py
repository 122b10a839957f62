"""Builds versitygw from source once, and starts it as a plain process: a second S3 server, of another code base than MinIO."""

from __future__ import annotations

from pathlib import Path

from testkit.servers.process import ACCESS_KEY, SECRET_KEY, ServerProcess
from testkit.servers.source import Say, Source, built

SOURCE = Source("versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0", "about a minute")


def binary(*, cache: Path, say: Say) -> Path:
    """Return the versitygw of `SOURCE`, built if the cache does not hold it yet; `ServerError` if it cannot be."""
    return built(SOURCE, cache=cache, say=say)


class VersitygwProcess(ServerProcess):
    """A versitygw that keeps its objects in a folder, with their metadata in extended attributes."""

    NAME = "versitygw"
    HEALTH = "/health"

    def arguments(self, data: Path) -> list[str]:
        """See `ServerProcess.arguments`."""
        return ["--port", self.address, "--health", self.HEALTH, "--quiet", "posix", str(data)]

    def environment(self) -> dict[str, str]:
        """See `ServerProcess.environment`."""
        return {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": SECRET_KEY}
