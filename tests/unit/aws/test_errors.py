"""What an error of S3 means for the one who waits to send."""

from __future__ import annotations

from json import JSONDecodeError

import aiohttp
import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    SSOTokenLoadError,
)
from botocore.parsers import ResponseParserError

from gateway.aws.errors import MEANINGS, explain
from gateway.core.errors import ObjectRefused, Refused, StoreError, Throttled, Transient


def answered(status: int, code: str, message: str = "", operation: str = "PutObject") -> ClientError:
    """An error as the client library raises it."""
    return ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},
        operation,
    )


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "InternalError", Transient),
        (502, "", Transient),
        (503, "SlowDown", Throttled),
        (503, "ServiceUnavailable", Throttled),
        (200, "InternalError", Transient),
        (200, "SlowDown", Throttled),
        (408, "RequestTimeout", Transient),
        (409, "ConditionalRequestConflict", Transient),
        (409, "OperationAborted", Transient),
        (429, "TooManyRequests", Throttled),
        (400, "RequestTimeout", Transient),
        (400, "IncompleteBody", Transient),
        (400, "BadDigest", Transient),
        (404, "NoSuchUpload", Transient),
        (404, "NoSuchKey", Transient),
        (404, "NoSuchBucket", Refused),
        (401, "Unauthorized", Refused),
        (403, "AccessDenied", Refused),
        (403, "InvalidAccessKeyId", Refused),
        (403, "SignatureDoesNotMatch", Refused),
        (403, "RequestTimeTooSkewed", Refused),
        (407, "", Refused),
        (501, "NotImplemented", Refused),
        (501, "", Refused),
        (405, "MethodNotAllowed", Refused),
        (400, "InvalidRequest", Refused),
        (400, "InvalidEncryptionAlgorithmError", Refused),
        (403, "QuotaExceeded", Refused),
        (400, "InvalidPart", ObjectRefused),
        (400, "EntityTooSmall", ObjectRefused),
        (400, "SomethingNew", ObjectRefused),
        (418, "", ObjectRefused),
        (400, "AuthorizationHeaderMalformed", Refused),
        (400, "ExpiredToken", Refused),
        (400, "InvalidToken", Refused),
        (400, "KMS.DisabledException", Refused),
        (400, "KMS.NotFoundException", Refused),
        (400, "InvalidBucketName", Refused),
        (400, "EntityTooLarge", ObjectRefused),
        (400, "KeyTooLongError", ObjectRefused),
        (400, "MetadataTooLarge", ObjectRefused),
        (400, "InvalidArgument", ObjectRefused),
        (413, "", ObjectRefused),
    ],
)
def test_an_answer_has_its_meaning(status: int, code: str, kind: type[StoreError]) -> None:
    """Each answer of a store is transient, refused, or refused for one object, and its text names all that was said."""
    error = explain(answered(status, code, "why"), "putting a/b")
    assert type(error) is kind
    assert str(error) == f"putting a/b: {status} {code} why"


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="http://127.0.0.1:1"),
        ConnectTimeoutError(endpoint_url="http://127.0.0.1:1"),
        ReadTimeoutError(endpoint_url="http://127.0.0.1:1"),
        HTTPClientError(error=aiohttp.ClientPayloadError("cut")),
        ConnectionResetError("reset"),
        TimeoutError(),
        OSError(5, "Input/output error"),
        ResponseParserError("no XML"),
    ],
)
def test_what_the_network_does_is_transient(error: Exception) -> None:
    """No answer, or half of one, says nothing about the object; the text is never empty."""
    explained = explain(error, "putting a/b")
    assert type(explained) is Transient
    assert len(str(explained)) > len("putting a/b: ")


@pytest.mark.parametrize(
    "error",
    [
        NoCredentialsError(),
        PartialCredentialsError(provider="env", cred_var="secret"),
        ProfileNotFound(profile="missing"),
        SSOTokenLoadError(error_msg="not logged in"),
        JSONDecodeError("what a credential_process prints", "", 0),
        RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."),
    ],
)
def test_no_credentials_are_refused(error: Exception) -> None:
    """Without credentials only a person can help, and the text says that it is about credentials."""
    explained = explain(error, "putting a/b")
    assert type(explained) is Refused
    assert "credentials" in str(explained)


@pytest.mark.parametrize("operation", ["AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials"])
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "InvalidIdentityToken", Refused),
        (400, "ExpiredTokenException", Refused),
        (403, "AccessDenied", Refused),
        (404, "NotFound", Refused),
        (400, "Throttling", Transient),
        (400, "IDPCommunicationError", Transient),
        (429, "TooManyRequests", Transient),
        (500, "InternalFailure", Transient),
        (501, "NotImplemented", Transient),
    ],
)
def test_who_gives_no_credentials_says_nothing_of_the_object(
    status: int, code: str, kind: type[StoreError], operation: str
) -> None:
    """The answer of a service that gives credentials is about these, and is never taken for one of the store's."""
    error = answered(status, code, "why", operation)
    explained = explain(error, "putting a/b")
    assert type(explained) is kind
    assert str(explained) == f"putting a/b: no AWS credentials: {operation} was answered {status} {code} why"
    assert explained.status == 0


def test_a_parameter_that_cannot_be_sent_is_the_objects_own() -> None:
    """What the client library refuses to send concerns the one object."""
    assert type(explain(ParamValidationError(report="bad metadata"), "putting a/b")) is ObjectRefused


def test_a_store_error_stays_what_it_is() -> None:
    """An error that was explained already is not explained again."""
    error = Refused("no")
    assert explain(error, "putting a/b") is error


@pytest.mark.parametrize("error", [KeyError("x"), AssertionError(), ValueError("v"), RuntimeError("r")])
def test_a_defect_stays_a_defect(error: Exception) -> None:
    """An exception that no store has caused is raised as it is."""
    with pytest.raises(type(error)) as raised:
        explain(error, "putting a/b")
    assert raised.value is error


def test_an_error_says_what_the_store_answered() -> None:
    """Status and code are there only where the store answered."""
    explained = explain(answered(404, "NoSuchKey"), "putting a/b")
    assert (explained.status, explained.code) == (404, "NoSuchKey")
    for error in (OSError(5, "Input/output error"), ClientError({}, "PutObject")):
        explained = explain(error, "putting a/b")
        assert (explained.status, explained.code) == (0, "")


def test_a_code_decides_and_not_its_status() -> None:
    """Each code of the table means one thing whatever the status that it comes with."""
    for code, kind in MEANINGS.items():
        for status in (200, 307, 400, 403, 404, 409, 500, 501):
            assert type(explain(answered(status, code), "putting a/b")) is kind, (status, code)


def test_a_redirect_names_its_address() -> None:
    """A redirect that was not followed says where to, and which settings decide that."""
    error = answered(307, "TemporaryRedirect", "elsewhere")
    error.response["ResponseMetadata"]["HTTPHeaders"] = {"location": "https://b.s3.eu-west-1.amazonaws.com/a"}
    explained = explain(error, "putting a/b")
    assert type(explained) is Refused
    assert "redirected to https://b.s3.eu-west-1.amazonaws.com/a" in str(explained)
    assert "aws.region" in str(explained)
