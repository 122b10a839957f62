"""The type of a file is what its sender claims, or what its first bytes say."""

from __future__ import annotations

import pytest

from gateway.core.media_type import content_type


@pytest.mark.parametrize(
    ("claimed", "first_bytes", "expected"),
    [
        ("image/PNG; charset=x", b"\xff\xd8\xff", "image/png; charset=x"),
        ("", b"\x89PNG\r\n\x1a\n....", "image/png"),
        ("application/octet-stream", b"\xff\xd8\xff\xe0", "image/jpeg"),
        ("application/x-www-form-urlencoded", b"GIF89a", "image/gif"),
        ("binary/octet-stream", b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        ("", b"\0\0\0\x1cftypavif", "image/avif"),
        ("", b"\0\0\0\x1cftypheic", "image/heic"),
        ("", b"%PDF-1.7", "application/pdf"),
        ("", b"PK\x03\x04", "application/zip"),
        ("", b"\x1f\x8b\x08", "application/gzip"),
        ("", b"II*\0", "image/tiff"),
        ("", b"BM", "image/bmp"),
        ("", b"", "application/octet-stream"),
        ("", b"RIFF\0\0\0\0WAVE", "application/octet-stream"),
        ("no type at all", b"hello", "application/octet-stream"),
        ("text/a\r\nX-Evil: 1", b"hello", "application/octet-stream"),
        ("text/日本", b"hello", "application/octet-stream"),
    ],
)
def test_content_type(claimed: str, first_bytes: bytes, expected: str) -> None:
    """The claimed type is believed where it says something and is one; else the first bytes are asked."""
    assert content_type(claimed, first_bytes) == expected


@pytest.mark.parametrize(
    ("claimed", "expected"),
    [
        ("text/plain; charset=Shift_JIS", "text/plain; charset=Shift_JIS"),
        ("Text/Plain ;CHARSET=UTF-8;\tFormat=Flowed ; ", "text/plain; charset=UTF-8; format=Flowed"),
        ('text/csv; header="present; really"', 'text/csv; header="present; really"'),
        (r'a/b; x="q\"uote"', r'a/b; x="q\"uote"'),
        ('a/b; x=""', 'a/b; x=""'),
        ("multipart/mixed; boundary=b; type=a", "multipart/mixed; boundary=b; type=a"),
        ("application/octet-stream; padding=3", "application/octet-stream; padding=3"),
        # What is malformed, or cannot stand in the head of an object, leaves the bare type.
        ("text/plain; charset", "text/plain"),
        ("text/plain; charset=", "text/plain"),
        ("text/plain; charset = utf-8", "text/plain"),
        ("text/plain; a=1; charset=日本", "text/plain"),
        ('text/plain; charset="utf-8', "text/plain"),
        ('text/plain; x="日"', "text/plain"),
        ('text/plain; x="a\\"', "text/plain"),
        ('text/plain; x="a  b"', "text/plain"),
        ('text/plain; x="a\tb"', "text/plain"),
        ("text/plain; boundary=a/b", "text/plain"),
        ("text/plain; x=" + "y" * 2000, "text/plain"),
        ("application/x-www-form-urlencoded; charset=utf-8", "application/octet-stream"),
        ("no type; charset=utf-8", "application/octet-stream"),
    ],
)
def test_parameters_stay_with_their_type(claimed: str, expected: str) -> None:
    """What a type says beside its name, such as its charset, is kept with its values as sent, or all of it is left out."""
    assert content_type(claimed, b"hello") == expected


def test_a_type_that_the_first_bytes_give_has_no_parameters() -> None:
    """The parameters of an unknown type do not go over to the one that was found."""
    assert content_type("application/octet-stream; padding=3", b"%PDF-1.7") == "application/pdf"
