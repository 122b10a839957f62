"""The S3 store that the configuration asks for."""

from __future__ import annotations

import socket
from functools import cache, partial
from typing import Any

import aiobotocore.session
from aiobotocore.config import AioConfig
from aiohttp.connector import AddrInfoType
from botocore.loaders import create_loader

from gateway.aws.errors import explain
from gateway.aws.proxies import is_in_network
from gateway.aws.session import OurSession, no_region
from gateway.aws.trust import ca_bundle, check_bundle
from gateway.config.schema import Config
from gateway.core.errors import ConfigError, Refused
from gateway.stores.s3.store import S3Options, S3Store


def s3_store(config: Config, streams: int) -> S3Store:
    """Build the store that the configuration asks for.

    Args:
        config: the whole configuration.
        streams: how many streams send at the same time, each `delivery.parallel_uploads`.
    """
    aws, s3 = config.aws, config.s3
    client_config = AioConfig(
        connect_timeout=s3.connect_timeout,
        read_timeout=s3.read_timeout,
        max_pool_connections=config.delivery.parallel_uploads * streams,
        # Every failure comes to delivery, which alone decides when to try again.
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation=s3.checksums,
        response_checksum_validation=s3.checksums,
        s3={"addressing_style": "path" if aws.endpoint else "auto"},
        # So long that a call is given up before, and for a reason that says so.
        connector_args={"socket_factory": partial(_socket, unsent_s=4 * s3.read_timeout)},
        http_session_cls=OurSession,
        # None has the library look into the environment.
        proxies={} if is_in_network(config) else None,
    )
    arguments: dict[str, Any] = {
        "region_name": aws.region,
        "endpoint_url": aws.endpoint or None,
        "config": client_config,
    }
    if aws.access_key_id:
        arguments["aws_access_key_id"] = aws.access_key_id
        arguments["aws_secret_access_key"] = aws.secret_access_key
        arguments["aws_session_token"] = aws.session_token or None
    trusted = ca_bundle()
    return S3Store(lambda: _session(trusted).create_client("s3", **arguments), _options(config))


def _socket(address: AddrInfoType, unsent_s: float) -> socket.socket:
    """A socket whose connection the kernel ends when the peer takes nothing for so long.

    A connection that is closed with bytes still to be sent would else wait for its peer without an end.
    """
    family, kind, protocol, *_ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, max(1, int(unsent_s * 1000)))
    return made


def _session(trusted: str | None) -> Any:
    """A session whose clients, those that credential providers make included, trust whom the gateway trusts.

    Raises:
        Refused: the AWS profile names a file of authorities that cannot be used; the client library would not say which.
    """
    session = aiobotocore.session.get_session()
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    session.register("before-call.s3.HeadBucket", no_region)
    # A profile of AWS may name a file of its own.
    named = session.get_config_variable("ca_bundle")
    if not named:
        session.set_config_variable("ca_bundle", trusted)
    else:
        try:
            check_bundle("ca_bundle of the AWS profile", named)
        except ConfigError as error:
            raise Refused(str(error)) from error
    return session


@cache
def _loader(data_path: str | None) -> Any:
    """What reads the descriptions of services: megabytes, which every client would else hold until the collector comes."""
    return create_loader(data_path)


def _options(config: Config) -> S3Options:
    s3 = config.s3
    extra = {
        "StorageClass": s3.storage_class,
        "ServerSideEncryption": s3.server_side_encryption,
        "SSEKMSKeyId": s3.kms_key_id,
    }
    given = {name: value for name, value in extra.items() if value}
    return S3Options(
        part_size=s3.part_size,
        conditional_put=s3.conditional_put,
        checksums=s3.checksums == "when_supported",
        patience_s=s3.read_timeout,
        extra=given,
    )


async def has_credentials(config: Config) -> bool:
    """Whether static keys, or anything in the standard AWS chain, give credentials now; StoreError for a chain that is broken."""
    if config.aws.access_key_id:
        return True
    trusted = ca_bundle()
    try:
        return await _session(trusted).get_credentials() is not None
    except Exception as error:
        raise explain(error, "looking for credentials") from error
