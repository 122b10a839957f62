"""The clients that a store is tried with, and all that was made there."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 (botocore's name of it)
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    SSLError,
)
from botocore.parsers import ResponseParserError

from gateway.aws.trust import ca_bundle
from gateway.core.errors import ConfigError
from trystore.finding import CHECKSUMS, SUPPORTED

TIMEOUT_S = 60
# How a call fails whose answer is none, or none of S3.
UNREADABLE = (BotoCoreError, ResponseParserError)


class Unusable(Exception):
    """Nothing can be tried; the text says what has to be mended first."""


@dataclass(frozen=True)
class Place:
    """Where the store is, and who asks.

    Attributes:
        bucket: empty for one that is made for this, and removed.
        access_key: empty for whatever the standard AWS chain finds.
    """

    url: str
    region: str
    bucket: str = ""
    access_key: str = ""
    secret_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)


def client_of(place: Place, checksums: str = SUPPORTED, *, secret_key: str = "") -> Any:
    """A client as the gateway's: it names buckets in the path, and never tries again by itself."""
    session = botocore.session.get_session()
    config = Config(
        connect_timeout=10,
        read_timeout=TIMEOUT_S,
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        s3={"addressing_style": "path"},
        max_pool_connections=32,
    )
    keys = {}
    if place.access_key:
        keys = {"aws_access_key_id": place.access_key, "aws_secret_access_key": secret_key or place.secret_key}
        keys |= {"aws_session_token": place.session_token} if place.session_token else {}
    elif secret_key:
        found = session.get_credentials()
        keys = {"aws_access_key_id": found.access_key, "aws_secret_access_key": secret_key}
    verify = ca_bundle()
    client = session.create_client("s3", place.region, endpoint_url=place.url, config=config, verify=verify or True, **keys)
    client.meta.events.register("before-call.s3", _stay)
    return client


def _stay(params: dict[str, Any], **_: Any) -> None:
    """Keep botocore from following a redirect to another region by itself: the answer is what is wanted here."""
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


@dataclass
class Trial:
    """What the tries share.

    Attributes:
        clients: one for each value of `s3.checksums`.
        prefix: random, of every key that is made.
        keys: those made so far.
        uploads: key and id of each upload that was begun.
    """

    place: Place
    bucket: str
    clients: dict[str, Any]
    prefix: str = field(default_factory=lambda: f"try-store-{secrets.token_hex(8)}/")
    keys: set[str] = field(default_factory=set)
    uploads: list[tuple[str, str]] = field(default_factory=list)

    @property
    def client(self) -> Any:
        """The client with the gateway's default settings."""
        return self.clients[SUPPORTED]

    def key(self, name: str) -> str:
        """A key of this trial's, which will be removed at its end."""
        self.keys.add(self.prefix + name)
        return self.prefix + name

    def named(self, name: str) -> dict[str, str]:
        """Bucket and key as every call takes them."""
        return {"Bucket": self.bucket, "Key": self.key(name)}

    def remove(self) -> list[str]:
        """Remove all that was made, and return the keys that could not be."""
        for key, upload_id in self.uploads:
            # Most are completed or aborted already, which is an error here.
            error_of(self.client.abort_multipart_upload, Bucket=self.bucket, Key=key, UploadId=upload_id)
        return [key for key in sorted(self.keys) if error_of(self.client.delete_object, Bucket=self.bucket, Key=key)]


def error_of(call: Callable[..., object], **arguments: Any) -> str:
    """Make a call and return how it failed: status and code, or the client's own error; empty if it did not."""
    try:
        call(**arguments)
    except ClientError as error:
        return described(error)
    except UNREADABLE as error:
        return type(error).__name__
    return ""


def described(error: ClientError) -> str:
    """Status and code of an error."""
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(error.response.get("Error", {}).get("Code", ""))
    return f"{status} {code}" if code and code != str(status) else str(status)


@contextmanager
def trial(place: Place) -> Iterator[Trial]:
    """Connect, make sure that there is a bucket to write to, and close everything at the end.

    Raises:
        Unusable: the store cannot be reached, or does not let this key write.
    """
    try:
        clients = {setting: client_of(place, setting) for setting in CHECKSUMS}
    except (BotoCoreError, ConfigError, ValueError) as error:
        raise Unusable(str(error)) from error
    made = "" if place.bucket else f"try-store-{secrets.token_hex(6)}"
    try:
        started = Trial(place, place.bucket or made, clients)
        if made:
            _reached(place, lambda: started.client.create_bucket(Bucket=made))
        _reached(place, lambda: started.client.put_object(**started.named("first"), Body=b"first"))
        yield started
        if made:
            error_of(lambda: started.client.delete_bucket(Bucket=made))
    finally:
        for client in clients.values():
            client.close()


# What a code means for the one who has started this.
_MEANT = {
    "InvalidAccessKeyId": "the store does not know this access key",
    "XAdminUserNotFound": "the store does not know this access key",
    "SignatureDoesNotMatch": "the secret key is not that of the access key",
    "NoSuchBucket": "the bucket is not there: make it first, or name another one with --bucket",
    "AccessDenied": "this key may not write there: it needs s3:PutObject, or without --bucket the right to make a bucket",
    "AuthorizationHeaderMalformed": "the region is another one: name it with --region",
    "PermanentRedirect": "the bucket is in another region, or at another address",
    "TemporaryRedirect": "the bucket is at another address for now",
    "RequestTimeTooSkewed": "the clocks of the store and of this machine differ too much",
}


def _reached(place: Place, call: Callable[[], object]) -> None:
    try:
        call()
    except (NoCredentialsError, PartialCredentialsError) as error:
        text = "no credentials: give --access-key and --secret-key, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        raise Unusable(text) from error
    except SSLError as error:
        raise Unusable(f"{place.url}: its certificate is not trusted; SSL_CERT_FILE names whom to trust ({error})") from error
    except (ConnectionError, HTTPClientError) as error:
        raise Unusable(f"{place.url} cannot be reached: {error}") from error
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        message = str(error.response.get("Error", {}).get("Message", ""))
        meant = _MEANT.get(code, f"the store refuses the first request, so it may be no S3 ({message})")
        raise Unusable(f"{place.url} answers {described(error)}: {meant}") from error
    except ResponseParserError as error:
        raise Unusable(f"{place.url} does not answer as S3 does: {' '.join(str(error).split())}") from error
    except (BotoCoreError, ValueError) as error:
        raise Unusable(f"{place.url}: {error}") from error
