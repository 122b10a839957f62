"""What an error of S3 means for the one who waits to send: try again, ask a person, or give up on this object alone."""

from __future__ import annotations

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    InvalidConfigError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)

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
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)


def status_of(error: Exception) -> int:
    """The HTTP status an error came with, 0 if none."""
    if not isinstance(error, ClientError):
        return 0
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
        message = error.response.get("Error", {}).get("Message", "")
        return _kind(status_of(error), code_of(error))(f"{doing}: {status_of(error)} {code_of(error)} {message}".rstrip())
    if isinstance(error, ParamValidationError):
        return ObjectRefused(f"{doing}: {error}")
    if isinstance(error, _WITHOUT_CREDENTIALS):
        return Refused(f"{doing}: no usable AWS credentials ({error})")
    if isinstance(error, BotoCoreError | OSError | TimeoutError):
        return Transient(f"{doing}: {str(error) or type(error).__name__}")
    raise error


def _kind(status: int, code: str) -> type[StoreError]:
    if code in _BUSY_CODES or code in _GONE_CODES or status in _BUSY_STATUSES or status >= 500:
        return Transient
    if code in _REFUSED_CODES or code.startswith("KMS.") or status in (301, 307, 401, 403, 404):
        return Refused
    return ObjectRefused if status in (400, 405, 411, 413, 414) else Transient
