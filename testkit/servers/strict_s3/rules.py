"""What S3 refuses of the head of a request, before anything is done."""

from __future__ import annotations

from collections.abc import Mapping

from testkit.servers.strict_s3.refusals import Refusal

META = "x-amz-meta-"
# "Object metadata" in the S3 user guide: the bytes of all names and values of a user's own.
MOST_METADATA = 2048
# "Naming objects" in the same: bytes of a key in UTF-8.
LONGEST_KEY = 1024
# RequestHeaderSectionTooLarge: the whole head, the user's own metadata included.
MOST_HEADERS = 8192

# The request headers that "Common request headers" and the pages of these operations in the API reference name.
KNOWN_HEADERS = frozenset(
    {
        *("x-amz-date", "x-amz-content-sha256", "x-amz-security-token", "x-amz-user-agent"),
        *("x-amz-decoded-content-length", "x-amz-trailer", "x-amz-sdk-checksum-algorithm"),
        *("x-amz-checksum-algorithm", "x-amz-checksum-type", "x-amz-checksum-mode", "x-amz-mp-object-size"),
        *("x-amz-checksum-crc32", "x-amz-checksum-crc32c", "x-amz-checksum-crc64nvme"),
        *("x-amz-checksum-sha1", "x-amz-checksum-sha256"),
        *("x-amz-acl", "x-amz-storage-class", "x-amz-tagging", "x-amz-website-redirect-location"),
        *("x-amz-server-side-encryption", "x-amz-server-side-encryption-aws-kms-key-id"),
        *("x-amz-server-side-encryption-context", "x-amz-server-side-encryption-bucket-key-enabled"),
        *("x-amz-object-lock-mode", "x-amz-object-lock-retain-until-date", "x-amz-object-lock-legal-hold"),
        *("x-amz-expected-bucket-owner", "x-amz-request-payer"),
    }
)
STORAGE_CLASSES = frozenset(
    {
        *("STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING"),
        *("GLACIER", "DEEP_ARCHIVE", "GLACIER_IR", "EXPRESS_ONEZONE"),
    }
)
ENCRYPTIONS = frozenset({"AES256", "aws:kms", "aws:kms:dsse"})


def check_headers(headers: Mapping[str, str]) -> None:
    """Check the headers by themselves.

    Raises:
        Refusal: with the code that is documented for what is wrong.
    """
    for name in headers:
        if name.startswith("x-amz-") and not name.startswith(META) and name not in KNOWN_HEADERS:
            # NotImplemented: the header implies functionality that is not there.
            raise Refusal(
                501, "NotImplemented", "A header you provided implies functionality that is not implemented", Header=name
            )
    if sum(len(name) + len(value.encode()) + 4 for name, value in headers.items()) > MOST_HEADERS:
        raise Refusal(400, "RequestHeaderSectionTooLarge", "The headers are too large.", MaxSizeAllowed=MOST_HEADERS)
    metadata = {name.removeprefix(META): value for name, value in headers.items() if name.startswith(META)}
    size = sum(len(name.encode()) + len(value.encode()) for name, value in metadata.items())
    if size > MOST_METADATA:
        raise Refusal(400, "MetadataTooLarge", "The metadata is too large.", Size=size, MaxSizeAllowed=MOST_METADATA)
    storage_class = headers.get("x-amz-storage-class", "STANDARD")
    if storage_class not in STORAGE_CLASSES:
        raise Refusal(
            400, "InvalidStorageClass", "The storage class you specified is not valid", StorageClassRequested=storage_class
        )
    encryption = headers.get("x-amz-server-side-encryption", "AES256")
    if encryption not in ENCRYPTIONS:
        # InvalidArgument: one of the values was expected.
        raise Refusal(400, "InvalidArgument", "The encryption method specified is not supported", ArgumentValue=encryption)
    if "x-amz-security-token" in headers:
        # InvalidToken: static keys have none.
        raise Refusal(400, "InvalidToken", "The provided token is malformed or otherwise invalid.")
    if headers.get("if-none-match", "*") != "*":
        # NotImplemented: puts take nothing but * there.
        raise Refusal(
            501, "NotImplemented", "A header you provided implies functionality that is not implemented", Header="If-None-Match"
        )


def check_key(key: str) -> None:
    """Check a key; `Refusal` if it is too long."""
    size = len(key.encode())
    if size > LONGEST_KEY:
        raise Refusal(400, "KeyTooLongError", "Your key is too long", Size=size, MaxSizeAllowed=LONGEST_KEY)
