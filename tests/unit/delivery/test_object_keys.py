"""Keys fit every store whatever a client sent, and differ where things differ; metadata is whole or says that it is not."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.delivery.object_keys import MAX_KEY_BYTES, batch_key, file_key, header_value, metadata_texts
from gateway.spool import names
from gateway.spool.names import KeyNumber
from testkit.texts import hours, long_texts, texts, uniques


@given(texts)
@example(" leading")
@example("two  blanks")
@example("100%")
@example("é%20")
def test_header_value_survives_a_header(text: str) -> None:
    """A metadata value is printable ASCII with no white space that is folded on its way, and says the whole text."""
    value, encoded = header_value(text)
    assert value.isascii()
    assert value == "" or value.isprintable()
    assert value == " ".join(value.split())
    assert (unquote_to_bytes(value) if encoded else value.encode()) == text.encode("utf-8", "surrogateescape")


def test_header_value_leaves_plain_text_alone() -> None:
    """A plain uri stands in the metadata as it was sent."""
    assert header_value("https://example.org/a b?c=d%20e") == ("https://example.org/a b?c=d%20e", False)


@given(long_texts, long_texts)
@example("日" * 4000, "u" * 4000)
def test_metadata_fits(user: str, uri: str) -> None:
    """Metadata never passes its bound, names the fields that are encoded, and says when something was cut."""
    found, complete = metadata_texts({"user": user, "uri": uri}, 1500)
    encoded = found.pop("encoded", "").split()
    assert sum(len(value) for value in found.values()) <= 1500
    for name, text in (("user", user), ("uri", uri)):
        value = found[name].encode()
        whole = (unquote_to_bytes(value) if name in encoded else value) == text.encode("utf-8", "surrogateescape")
        assert whole or not complete
        assert found[name].isascii()


def test_metadata_tells_which_fields_are_encoded() -> None:
    """Of two texts only the one that needs it is encoded, and it is named."""
    assert metadata_texts({"user": "日", "uri": "a"}, 1500) == (
        {"user": "%E6%97%A5", "uri": "a", "encoded": "user"},
        True,
    )


def test_optional_metadata_is_whole_or_missing() -> None:
    """A text that is optional takes what the others leave: it is there whole, or it is said that something is missing."""
    texts = {"user": "u" * 600, "uri": "a" * 600}
    assert metadata_texts(texts, 1500, {"filename": "f" * 200, "fields": "日" * 11}) == (
        {**texts, "filename": "f" * 200, "fields": "%E6%97%A5" * 11, "encoded": "fields"},
        True,
    )
    assert metadata_texts(texts, 1500, {"filename": "f" * 200, "fields": "日" * 12}) == (
        {**texts, "filename": "f" * 200},
        False,
    )
    assert metadata_texts(texts, 1500, {"filename": "f" * 301, "fields": "x"}) == ({**texts, "fields": "x"}, False)


@pytest.mark.parametrize(
    ("number", "key"),
    [
        (1, "p/2026/11/21/13/2026112113.host%2E1.jsonl.gz"),
        (2, "p/2026/11/21/13/2026112113.host%2E1.2.jsonl.gz"),
        (60, "p/2026/11/21/13/2026112113.host%2E1.60.jsonl.gz"),
        (0, f"p/2026/11/21/13/2026112113.host%2E1.{'ab' * 16}.jsonl.gz"),
    ],
)
def test_batch_keys(number: int, key: str) -> None:
    """The first batch of an hour has the plain key, later ones a number, and number 0 the batch's id."""
    assert batch_key("p/", names.new_batch("2026112113", "host.1", bytes([0xAB]) * 16), KeyNumber(number)) == key


@given(hours, long_texts, st.sets(st.integers(0, 10**6), min_size=2), uniques)
def test_batch_keys_differ(hour: str, host: str, numbers: set[int], unique: bytes) -> None:
    """No two numbers of a batch share a key."""
    batch = names.new_batch(hour, host, unique)
    assert len({batch_key("", batch, KeyNumber(number)) for number in numbers}) == len(numbers)


FORBIDDEN = re.compile(r"[/.\x00-\x1f\x7f-\U0010ffff]")
RECEIVED = 1_795_269_540_000_000_007
# After a clock that was stepped back by a day and more.
ORDER = RECEIVED + 90_000_000_000_000
DAY = "2026/11/21"


def key(uri: str, media_type: str = "image/png", user: str = "u", again: str = "") -> str:
    """Give the key of a file under no prefix, without what is the same in every one."""
    whole = file_key("", user=user, uri=uri, media_type=media_type, received_ns=RECEIVED, order=ORDER, again=again)
    return whole.replace(f"{DAY}/", "").replace(str(ORDER), "T")


@given(long_texts, long_texts, st.sampled_from(["", "2", "ab" * 16]))
@example("日" * 4000, "日" * 4000 + ".jpeg", "ab" * 16)
def test_file_keys_fit_a_store(user: str, uri: str, again: str) -> None:
    """A key is ASCII of at most 1,024 bytes with its companion's suffix, and no part of it climbs a directory."""
    made = file_key("p" * 511 + "/", user=user, uri=uri, media_type="image/png", received_ns=RECEIVED, order=ORDER, again=again)
    assert len(f"{made}.meta.json".encode("ascii")) <= MAX_KEY_BYTES
    owner, *date, name = made.removeprefix("p" * 511 + "/").split("/")
    assert "/".join(date) == DAY
    assert not FORBIDDEN.search(owner)
    assert name not in ("", ".", "..")
    assert not FORBIDDEN.search(name.replace(".", ""))


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("https://example.org/a/b.PNG?x=1.txt#f.gif", "u/b.T.png"),
        ("https://example.org/", "u/specimen.T.png"),
        ("https://example.org", "u/specimen.T.png"),
        ("http://[", "u/%5B.T.png"),
        ("C:\\pictures\\a b.jpeg", "u/a%20b.T.jpeg"),
        ("/", "u/specimen.T.png"),
        ("a.b.c", "u/a%2Eb.T.c"),
        (".bashrc", "u/%2Ebashrc.T.png"),
        ("archive.", "u/archive%2E.T.png"),
        ("../../etc/passwd", "u/passwd.T.png"),
        ("..", "u/%2E%2E.T.png"),
        ("x.", "u/x%2E.T.png"),
        ("long.extensionofmany", "u/long%2Eextensionofmany.T.png"),
        ("日本.jpg", "u/%E6%97%A5%E6%9C%AC.T.jpg"),
        ("\udcff.jpg", "u/%FF.T.jpg"),
    ],
)
def test_file_keys_come_from_the_uri(uri: str, expected: str) -> None:
    """Name and extension come from the last part of the uri, whatever kind of path that is."""
    assert key(uri) == expected


@pytest.mark.parametrize(
    ("media_type", "extension"),
    [
        ("image/jpeg", "jpg"),
        ("image/png", "png"),
        ("text/plain", "txt"),
        ("application/gzip", "gz"),
        ("application/octet-stream", "bin"),
        ("application/vnd.ms-excel", "bin"),
        ("image/svg+xml", "svg"),
        ("application/pdf", "pdf"),
    ],
)
def test_extension_of_a_type(media_type: str, extension: str) -> None:
    """Where the uri has no extension the media type gives one, from a table that does not change with the machine."""
    assert key("a", media_type) == f"u/a.T.{extension}"


def test_file_keys_of_a_second_attempt_differ() -> None:
    """A further number, or the id, stands before the extension."""
    assert key("a.png", again="2") == "u/a.T.2.png"
    assert key("a.png", again="ab" * 16) == f"u/a.T.{'ab' * 16}.png"


@pytest.mark.parametrize("parameters", ["; charset=utf-8", '; x="/a.b"'])
@pytest.mark.parametrize("media_type", ["text/plain", "image/svg+xml", "image/png", "a/b.c"])
def test_parameters_leave_the_key_alone(media_type: str, parameters: str) -> None:
    """The extension in a key comes from the bare type."""
    assert key("a", media_type + parameters) == key("a", media_type)
