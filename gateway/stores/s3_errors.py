"""What an error of S3 means for the one who waits to send: try again, ask a person, or give up on this object alone."""

from __future__ import annotations

from json import JSONDecodeError

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    InvalidConfigError,
    LoginError,
    MissingDependencyException,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.parsers import ResponseParserError

from gateway.errors import ObjectRefused, Refused, StoreError, Transient

# Statuses of the 4xx range that say "not now".
_BUSY_STATUSES = frozenset({408, 409, 412, 425, 429})
# Codes that come with status 400 and are nobody's fault but the network's.
_BUSY_CODES = frozenset(
    {
        "RequestTimeout",
        "IncompleteBody",
        "BadDigest",
        "XAmzContentSHA256Mismatch",
        "XAmzContentChecksumMismatch",
        "SlowDown",
    }
)
# Codes that come with status 400 and concern every object alike.
_REFUSED_CODES = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "ExpiredToken",
        "IllegalLocationConstraintException",
        "InvalidBucketName",
        "InvalidToken",
        "InvalidStorageClass",
        "TokenRefreshRequired",
    }
)
# A 404 that is not about the bucket is about an upload or an object that went away meanwhile.
_GONE_CODES = frozenset({"NoSuchUpload", "NoSuchKey"})
_WITHOUT_CREDENTIALS = (
    CredentialRetrievalError,
    InvalidConfigError,
    # Only what gives credentials speaks JSON: the output of a profile's credential_process is none.
    JSONDecodeError,
    LoginError,
    MissingDependencyException,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
# What the client library asks other services for before it asks S3; their answers say nothing of an object or a bucket.
_CREDENTIAL_CALLS = frozenset(
    {"AssumeRole", "AssumeRoleWithWebIdentity", "CreateOAuth2Token", "CreateToken", "GetRoleCredentials"}
)
# Their codes that come with status 400 and say "not now".
_CREDENTIALS_BUSY = frozenset({"IDPCommunicationError", "RequestLimitExceeded", "Throttling", "ThrottlingException"})


def status_of(error: Exception) -> int:
    """The HTTP status that S3 answered an error with, 0 if none."""
    if not isinstance(error, ClientError) or error.operation_name in _CREDENTIAL_CALLS:
        return 0
    return _status(error)


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def code_of(error: Exception) -> str:
    """S3's code of an error, empty if there is none."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def explain(error: Exception, doing: str) -> StoreError:
    """The store error that an exception of the client library means.

    An exception that means none of them is a defect of ours, and stays what it is.
    """
    if isinstance(error, StoreError):
        return error
    if isinstance(error, ClientError):
        status, code = _status(error), code_of(error)
        message = error.response.get("Error", {}).get("Message", "")
        if error.operation_name in _CREDENTIAL_CALLS:
            is_busy = status >= 500 or status in _BUSY_STATUSES or code in _CREDENTIALS_BUSY
            said = f"{doing}: no AWS credentials: {error.operation_name} was answered {status} {code} {message}"
            return (Transient if is_busy else Refused)(said.rstrip())
        return _kind(status, code)(f"{doing}: {status} {code} {message}".rstrip())
    if isinstance(error, ParamValidationError):
        return ObjectRefused(f"{doing}: {error}")
    if isinstance(error, _WITHOUT_CREDENTIALS) or _is_expired_already(error):
        return Refused(f"{doing}: no usable AWS credentials ({error})")
    if isinstance(error, BotoCoreError | ResponseParserError | OSError | TimeoutError):
        return Transient(f"{doing}: {str(error) or type(error).__name__}")
    raise error


def _is_expired_already(error: Exception) -> bool:
    """Whether credentials were given that had expired when they came, as to a machine whose clock is ahead."""
    return isinstance(error, RuntimeError) and "credentials are still expired" in str(error)


def _kind(status: int, code: str) -> type[StoreError]:
    if code in _BUSY_CODES or code in _GONE_CODES or status in _BUSY_STATUSES or status >= 500:
        return Transient
    if code in _REFUSED_CODES or code.startswith("KMS.") or status in (301, 307, 401, 403, 404):
        return Refused
    return ObjectRefused if status in (400, 405, 411, 413, 414) else Transient
