"""What is tried with requests that have to be refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from trystore.finding import Finding
from trystore.objects import tried
from trystore.session import Trial, client_of, error_of


def errors(trial: Trial) -> Iterator[Finding]:
    """Try requests that are wrong."""
    yield tried("no bucket", "PutObject to a missing bucket is 404 NoSuchBucket", lambda: _no_bucket(trial))
    yield tried("wrong secret", "a wrong secret is 403 SignatureDoesNotMatch", lambda: _wrong_secret(trial))
    yield tried("unknown header", "an unknown x-amz- header is 501 NotImplemented", lambda: _unknown_header(trial))


def _no_bucket(trial: Trial) -> tuple[bool, str]:
    named = {"Bucket": f"{trial.prefix.strip('/')}-none", "Key": "key"}
    error = error_of(trial.client.put_object, **named, Body=b"")
    if error:
        return error == "404 NoSuchBucket", error
    # Nobody has named this bucket, so nobody would remove it.
    error_of(trial.client.delete_object, **named)
    error_of(trial.client.delete_bucket, Bucket=named["Bucket"])
    return False, "taken: the store makes the bucket itself"


def _wrong_secret(trial: Trial) -> tuple[bool, str]:
    client = client_of(trial.place, secret_key="not-the-secret")  # noqa: S106 (wrong on purpose)
    try:
        error = error_of(lambda: client.put_object(**trial.named("secret"), Body=b""))
    finally:
        client.close()
    return error == "403 SignatureDoesNotMatch", error or "taken"


def _unknown_header(trial: Trial) -> tuple[bool, str]:
    def add(request: Any, **_: Any) -> None:
        request.headers["x-amz-no-such-feature"] = "on"

    client = client_of(trial.place)
    client.meta.events.register("before-sign.s3.PutObject", add)
    try:
        error = error_of(lambda: client.put_object(**trial.named("header"), Body=b""))
    finally:
        client.close()
    return error == "501 NotImplemented", error or "taken: the header is ignored"
