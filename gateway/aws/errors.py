"""What an error of S3 means for delivery: try again, ask a person, or put off this object alone.

One table says what each code means that S3 documents for the calls made here. A status decides only where no code is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from json import JSONDecodeError
from typing import Any, Final

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

from gateway.core.errors import ObjectRefused, Refused, StoreError, Throttled, Transient

# Not now: the same request may succeed later.
_TRANSIENT_CODES: Final = (
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "NoSuchKey",
    # The upload is begun anew.
    "NoSuchUpload",
    "OperationAborted",
    "PreconditionFailed",
    "RequestTimeout",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
)
# Less often: others may be taken meanwhile.
_THROTTLED_CODES: Final = (
    "Busy",
    "RequestLimitExceeded",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
)
# The bucket, its policy, the account or a setting: whatever is put is refused until a person changes something.
_REFUSED_CODES: Final = (
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "AuthorizationHeaderMalformed",
    "CredentialsNotSupported",
    "ExpiredToken",
    "IllegalLocationConstraintException",
    "InvalidAccessKeyId",
    "InvalidBucketName",
    "InvalidBucketState",
    "InvalidEncryptionAlgorithmError",
    "InvalidLocationConstraint",
    "InvalidObjectState",
    "InvalidPayer",
    "InvalidRegion",
    # A header that the bucket demands, or does not take: object lock without a checksum, for one.
    "InvalidRequest",
    "InvalidSecurity",
    "InvalidStorageClass",
    "InvalidToken",
    "MethodNotAllowed",
    "MissingContentLength",
    "MissingSecurityElement",
    "MissingSecurityHeader",
    "NoSuchBucket",
    "NotImplemented",
    "NotSignedUp",
    "ObjectLockConfigurationNotFoundError",
    "PermanentRedirect",
    "QuotaExceeded",
    "Redirect",
    "RequestTimeTooSkewed",
    "ServerSideEncryptionConfigurationNotFoundError",
    "SignatureDoesNotMatch",
    "TemporaryRedirect",
    "TokenRefreshRequired",
    "XMinioAdminBucketQuotaExceeded",
)
# This object: others of the stream may be taken. Where they are not, delivery finds that out.
_OBJECT_CODES: Final = (
    "EntityTooLarge",
    "EntityTooSmall",
    "InvalidArgument",
    "InvalidDigest",
    "InvalidPart",
    "InvalidPartOrder",
    "InvalidTag",
    "InvalidURI",
    "KeyTooLongError",
    "MalformedXML",
    "MaxMessageLengthExceeded",
    "MetadataTooLarge",
    "RequestHeaderSectionTooLarge",
)
MEANINGS: Final[Mapping[str, type[StoreError]]] = {
    **dict.fromkeys(_TRANSIENT_CODES, Transient),
    **dict.fromkeys(_THROTTLED_CODES, Throttled),
    **dict.fromkeys(_REFUSED_CODES, Refused),
    **dict.fromkeys(_OBJECT_CODES, ObjectRefused),
}
# For an answer without a code of the table, such as a proxy gives; 5xx are transient, what else is below 500 is the object's.
_REFUSED_STATUSES: Final = frozenset({300, 301, 302, 303, 305, 307, 308, 401, 403, 404, 405, 407, 411, 501})
_TOO_MANY_REQUESTS: Final = 429
_TRANSIENT_STATUSES: Final = frozenset({408, 409, 412, 423, 425, 429})
# Codes after which the credentials are looked for anew: they may have been replaced where they come from.
STALE_CREDENTIALS: Final = frozenset(
    {"ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch", "TokenRefreshRequired"}
)

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


def explain(error: Exception, doing: str) -> StoreError:
    """The store error that an exception of the client library means.

    Its status and code are those of S3's answer; what gives credentials has its say in the text alone.
    An exception that means none of them is a defect of ours, and stays what it is.
    """
    if isinstance(error, StoreError):
        return error
    if isinstance(error, ClientError):
        return _answered(error, doing)
    if isinstance(error, ParamValidationError):
        return ObjectRefused(f"{doing}: {error}")
    if isinstance(error, _WITHOUT_CREDENTIALS) or _is_expired_already(error):
        return Refused(f"{doing}: no usable AWS credentials ({error})")
    if isinstance(error, BotoCoreError | ResponseParserError | OSError | TimeoutError):
        return Transient(f"{doing}: {str(error) or type(error).__name__}")
    raise error


def _answered(error: ClientError, doing: str) -> StoreError:
    metadata = error.response.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    code = str(error.response.get("Error", {}).get("Code", ""))
    message = error.response.get("Error", {}).get("Message", "")
    if error.operation_name in _CREDENTIAL_CALLS:
        is_busy = status >= 500 or status in _TRANSIENT_STATUSES or code in _CREDENTIALS_BUSY
        said = f"{doing}: no AWS credentials: {error.operation_name} was answered {status} {code} {message}"
        return (Transient if is_busy else Refused)(said.rstrip())
    said = f"{doing}: {status} {code} {message}".rstrip()
    if 300 <= status < 400:
        said += _redirected(metadata)
    return kind_of(status, code)(said, status=status, code=code)


def may_be_of_the_condition(error: StoreError) -> bool:
    """Whether an answer is one that some stores give to `If-None-Match` because they do not know it."""
    return error.status in (400, 501) and not isinstance(error, Transient) and error.code not in STALE_CREDENTIALS


def _redirected(metadata: Mapping[str, Any]) -> str:
    headers = metadata.get("HTTPHeaders", {})
    place = headers.get("location") or "an address that it does not name"
    region = headers.get("x-amz-bucket-region")
    known = f" (the bucket is in {region})" if region else ""
    return f": redirected to {place}{known}; a request is signed for one address: correct aws.region or aws.endpoint"


def _is_expired_already(error: Exception) -> bool:
    """Whether credentials were given that had expired when they came, as to a machine whose clock is ahead."""
    return isinstance(error, RuntimeError) and "credentials are still expired" in str(error)


def kind_of(status: int, code: str) -> type[StoreError]:
    """What an answer means."""
    if code.startswith("KMS."):
        return Refused
    if (known := MEANINGS.get(code)) is not None:
        return known
    if status == _TOO_MANY_REQUESTS:
        return Throttled
    if status in _REFUSED_STATUSES:
        return Refused
    if status in _TRANSIENT_STATUSES or status >= 500 or status < 300:
        return Transient
    return ObjectRefused
