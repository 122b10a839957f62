"""The subcommand `check-config`: what is in effect, and whether a gateway that is started with it could do its work."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from pathlib import Path

from gateway.aws.proxies import proxy_of
from gateway.cli.output import complain, say
from gateway.cli.parser import BAD_USAGE
from gateway.config.render import to_yaml
from gateway.config.schema import Config
from gateway.config.streams import bucket_key, streams_of
from gateway.core.errors import ConfigError, StartError, StoreError
from gateway.core.streams import Stream
from gateway.service.sockets import open_listeners
from gateway.spool import cache_dir
from gateway.spool.directories import Directories
from gateway.spool.go_edition.adopt import check_streams
from gateway.spool.left_streams import check_forms
from gateway.stores.s3.client import has_credentials, s3_store
from gateway.stores.s3.store import S3Store
from gateway.web.tls import server_context

NO_CREDENTIALS = (
    "aws: no credentials: set aws.access_key_id and aws.secret_access_key, or AWS_PROFILE, or give the machine a role"
)


def check_config(config: Config, *, local: bool) -> int:
    """Print what is in effect, then what is wrong, or what was proved; return the exit code."""
    say(printed(config))
    found = asyncio.run(check(config, local=local))
    for fault in found.faults:
        complain(fault)
    if not found.faults:
        # As comments, so that what is printed stays a configuration.
        say("\n".join(f"# {sentence}." for sentence in found.proved))
    return BAD_USAGE if found.faults else 0


class Findings:
    """What a check has found.

    Attributes:
        faults: one sentence each, which begins with the key.
        proved: one sentence each.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.proved: list[str] = []


def printed(config: Config) -> str:
    """The configuration in effect, as YAML."""
    return to_yaml(config).rstrip()


async def check(config: Config, *, local: bool) -> Findings:
    """Try everything that a running gateway needs; ConfigError for a certificate that cannot be used.

    Args:
        config: the configuration.
        local: whether objects go into a directory instead of S3.
    """
    # What a library would warn of is among the faults that are reported here.
    logging.root.addHandler(logging.NullHandler())
    found = Findings()
    server_context(config.listen)
    _check_cache_dir(config, found)
    _check_addresses(config, found)
    if not local:
        await _check_stores(config, found)
    return found


def _check_cache_dir(config: Config, found: Findings) -> None:
    layout = Directories(config.cache_dir, streams_of(config))
    try:
        cache_dir.try_out(config.cache_dir, keep=False)
        layout.check_format()
        check_streams(layout)
        check_forms(layout)
    except StartError as error:
        found.faults.append(str(error))
        return
    place = next(path for path in (config.cache_dir, *config.cache_dir.absolute().parents) if path.is_dir())
    if (fault := cache_dir.room_fault(place, config.spool.reserve, is_empty=layout.is_empty())) is not None:
        found.faults.append(fault)
    else:
        found.proved.append(f"cache_dir {config.cache_dir}: files can be written, synced, renamed and locked there")


def _check_addresses(config: Config, found: Findings) -> None:
    """Any port will do: the one that is to be used may be that of the gateway which runs now."""
    try:
        open_listeners(config.listen, 0, 1).close()
    except StartError as error:
        if config.listen.unix is None:
            found.faults.append(f"listen: {error}")


async def _check_stores(config: Config, found: Findings) -> None:
    try:
        if not await has_credentials(config):
            found.faults.append(NO_CREDENTIALS)
            return
    except StoreError as error:
        found.faults.append(f"aws: {error}")
        return
    try:
        proxy_of(config)
    except ConfigError as error:
        found.faults += error.faults
        return
    store = s3_store(config, 1)
    try:
        for stream in streams_of(config):
            try:
                found.proved.append(await _proof_of(store, stream, config))
            except StoreError as error:
                found.faults.append(f"{bucket_key(stream.name, config)}: {error}")
    finally:
        await store.close()


async def _proof_of(store: S3Store, stream: Stream, config: Config) -> str:
    """Do what the gateway does at its start, and with its first large object; say what that proves."""
    await store.honours_condition(stream.bucket, stream.prefix)
    with tempfile.TemporaryDirectory() as folder:
        await store.prove_parts(stream.bucket, stream.prefix, Path(folder) / "upload")
    replaces = not await store.honours_condition(stream.bucket, stream.prefix)
    how = "replaces objects, so that each key holds an id" if replaces else "refuses to replace an object"
    through = f", through the proxy {proxy}" if (proxy := proxy_of(config)) else ""
    place = f"{stream.bucket}/{stream.prefix}" if stream.prefix else stream.bucket
    key = bucket_key(stream.name, config)
    return f"{key} {place}: keeps what is put, shows it again, {how}, takes and aborts uploads in parts{through}"
