"""Names hold whatever a client may send, and no client's text can be more in them than a label."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.spool import names

# What a header or a uri can hold: any character, and bytes that were not UTF-8 as surrogate escapes.
escapes = st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, categories=["Cs"])
nasty = st.sampled_from(["/", ".", "..", "~", "%", "\0", "\n", "\x7f", " ", "%2F", "é", "日本", "\\", "jsonl.open", ".body"])


def decoded(text: str) -> str:
    """Give the text as decoding of its bytes gives it: a run of escapes that is UTF-8 would have been a character."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


texts = st.lists(nasty | escapes | st.characters(exclude_categories=["Cs"]), max_size=60).map("".join).map(decoded)
long_texts = st.tuples(texts, st.integers(1, 80)).map(lambda pair: decoded(pair[0] * pair[1]))
instants = st.integers(0, 9_000_000_000 * names.NANOSECONDS)
pids = st.integers(1, 1 << 22)
kinds = st.sampled_from([names.OPEN_SEGMENT, names.CUT_SEGMENT, names.WHOLE_REPORT, names.BODY, names.SIDECAR])
hours = st.datetimes(datetime(1971, 1, 1), datetime(2200, 1, 1)).map(lambda moment: f"{moment:%Y%m%d%H}")  # noqa: DTZ001 (hypothesis wants naive bounds)
uniques = st.binary(min_size=16, max_size=16)
FORBIDDEN = re.compile(r"[/.\x00-\x1f\x7f-\U0010ffff]")


# --- text in names -----------------------------------------------------------------------------------------------


@given(texts)
@example("../../etc/passwd")
@example("\udc80\udcff")
def test_encoded_text_is_harmless_and_whole(text: str) -> None:
    """Encoding leaves no slash, dot, tilde, control byte or byte beyond ASCII, and decoding gives the text again."""
    encoded = names.encode(text)
    assert not FORBIDDEN.search(encoded)
    assert "~" not in encoded
    assert names.decode(encoded) == text


@given(long_texts, st.integers(40, 300))
def test_cut_text_fits(text: str, room: int) -> None:
    """A text that is too long is cut to its room, harmless as before, and no escape is left torn."""
    encoded = names.encode(text, room)
    assert len(encoded) <= room
    assert not FORBIDDEN.search(encoded)
    kept = encoded.partition("~")[0]
    assert re.fullmatch(r"(?:[^%]|%[0-9A-F]{2})*", kept)


@given(long_texts, long_texts)
@example("x" * 300 + "a", "x" * 300 + "b")
@example("日" * 300, "日" * 301)
def test_distinct_texts_stay_distinct(one: str, other: str) -> None:
    """Two texts never share a name, not even where only their last characters differ and both are cut."""
    assume(one != other)
    assert names.encode(one, 100) != names.encode(other, 100)


@given(texts)
@example("a\udcffb")
@example("a\udcff%41")
def test_readable_text_can_be_written_anywhere(text: str) -> None:
    """Text stays as it is; with bytes that are not UTF-8 it is percent-encoded, in a way that can be undone."""
    readable = names.readable(text)
    readable.encode()
    if names.is_readable(text):
        assert readable == text
    else:
        assert unquote_to_bytes(readable) == text.encode("utf-8", "surrogateescape")


def test_a_surrogate_that_escapes_nothing_is_readable() -> None:
    """A text of a store may hold what no text can: half of a pair, from an escape in its JSON."""
    assert names.readable("a\ud800b") == "a%ED%A0%80b"


@given(texts)
@example(" leading")
@example("two  blanks")
@example("100%")
@example("é%20")
def test_header_value_survives_a_header(text: str) -> None:
    """A metadata value is printable ASCII with no white space that is folded on its way, and says the whole text."""
    value, encoded = names.header_value(text)
    assert value.isascii()
    assert value == "" or value.isprintable()
    assert value == " ".join(value.split())
    assert (unquote_to_bytes(value) if encoded else value.encode()) == text.encode("utf-8", "surrogateescape")


def test_header_value_leaves_plain_text_alone() -> None:
    """A plain uri stands in the metadata as it was sent."""
    assert names.header_value("https://example.org/a b?c=d%20e") == ("https://example.org/a b?c=d%20e", False)


@given(long_texts, long_texts)
@example("日" * 4000, "u" * 4000)
def test_metadata_fits(user: str, uri: str) -> None:
    """Metadata never passes its bound, names the fields that are encoded, and says when something was cut."""
    found, complete = names.metadata_texts({"user": user, "uri": uri}, 1500)
    encoded = found.pop("encoded", "").split()
    assert sum(len(value) for value in found.values()) <= 1500
    for name, text in (("user", user), ("uri", uri)):
        value = found[name].encode()
        whole = (unquote_to_bytes(value) if name in encoded else value) == text.encode("utf-8", "surrogateescape")
        assert whole or not complete
        assert found[name].isascii()


def test_metadata_tells_which_fields_are_encoded() -> None:
    """Of two texts only the one that needs it is encoded, and it is named."""
    assert names.metadata_texts({"user": "日", "uri": "a"}, 1500) == (
        {"user": "%E6%97%A5", "uri": "a", "encoded": "user"},
        True,
    )


def test_optional_metadata_is_whole_or_missing() -> None:
    """A text that is optional takes what the others leave: it is there whole, or it is said that something is missing."""
    texts = {"user": "u" * 600, "uri": "a" * 600}
    assert names.metadata_texts(texts, 1500, {"filename": "f" * 200, "fields": "日" * 11}) == (
        {**texts, "filename": "f" * 200, "fields": "%E6%97%A5" * 11, "encoded": "fields"},
        True,
    )
    assert names.metadata_texts(texts, 1500, {"filename": "f" * 200, "fields": "日" * 12}) == (
        {**texts, "filename": "f" * 200},
        False,
    )
    assert names.metadata_texts(texts, 1500, {"filename": "f" * 301, "fields": "x"}) == ({**texts, "fields": "x"}, False)


# --- time in names -----------------------------------------------------------------------------------------------


@given(instants)
def test_an_instant_is_in_its_hour(instant: int) -> None:
    """An hour begins at the instant its digits say and lasts 3,600 seconds."""
    begin = names.instant_of(names.hour_of(instant))
    assert begin <= instant < begin + names.HOUR_NS


@pytest.mark.parametrize("digits", ["2026112124", "2026130100", "0000000000", "9999999999"])
def test_digits_that_are_no_hour_are_no_error(digits: str) -> None:
    """A batch that a person renamed to an hour which does not exist counts as very old."""
    assert names.instant_of(digits) == 0


def test_iso_has_nanoseconds() -> None:
    """An instant is written with all its digits, in UTC."""
    assert names.iso(1_795_269_540_000_000_007) == "2026-11-21T13:59:00.000000007Z"


# --- files in the spool ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["1700000000000000000.07.jsonl", "170000000000000000\u0660.7.jsonl", "1700000000000000000..jsonl"]
)
def test_a_number_is_written_in_one_way(name: str) -> None:
    """A name whose parts would give another name is none of ours: it would be looked for where it is not."""
    assert names.parse_spool_name(name) is None


@given(instants, instants, pids, kinds, long_texts)
def test_spool_names_are_read_back(order: int, received: int, pid: int, kind: str, text: str) -> None:
    """A spooled file's name fits a directory with the longest suffix beside it, and all its parts are found again."""
    name = names.spool_name(order, received, pid, kind, text)
    assert len(name.encode()) + len(f".{names.UPLOAD_NOTE}") <= names.MAX_NAME_BYTES
    parsed = names.parse_spool_name(name)
    assert parsed is not None
    assert (parsed.order, parsed.received_ns, parsed.pid, parsed.kind) == (order, received, pid, kind)
    assert str(parsed) == name
    if len(names.encode(text)) < 100:
        assert names.decode(parsed.label) == text


@given(instants, instants, texts, texts)
def test_spool_names_sort_by_age(one: int, other: int, label: str, other_label: str) -> None:
    """Whatever clients sent, the older file has the lesser name."""
    assume(one < other)
    assert names.spool_name(one, other, 7, "json", label) < names.spool_name(other, one, 7, "json", other_label)


@pytest.mark.parametrize("label", ["", ".alice", ".1795269540000000009"])
def test_names_of_format_1_are_read(label: str) -> None:
    """A name that an earlier version gave says by its order when the file was received."""
    parsed = names.parse_spool_name(f"1795269540000000007.7{label}.json")
    assert parsed is not None
    assert (parsed.order, parsed.received_ns, parsed.pid, parsed.label) == (
        1795269540000000007,
        1795269540000000007,
        7,
        label[1:],
    )
    assert str(parsed) == f"1795269540000000007.7{label}.json"


@given(texts)
@example("1795269540000000007.7.a.json.open")
@example("1795269540000000007.7.a.json\n")
@example("1795269540000000007.7.json.upload")
def test_other_names_are_not_taken_for_ours(text: str) -> None:
    """What is not a name of ours to the last byte is none."""
    for name in (text, f"{text}.json", f"1795269540000000007.7.{text}", f" 1795269540000000007.7.{text}.json"):
        parsed = names.parse_spool_name(name)
        assert parsed is None or str(parsed) == name


# --- batches -----------------------------------------------------------------------------------------------------


@given(hours, long_texts, uniques, st.integers(0, 10**9))
def test_batch_names_are_read_back(hour: str, host: str, unique: bytes, number: int) -> None:
    """A batch is known by its directory and by its sealed file, whatever the machine is called."""
    batch = names.new_batch(hour, host, unique)
    assert names.parse_batch(str(batch)) == batch
    assert names.parse_sealed(batch.sealed(number)) == (batch, number)
    assert len(f"{batch.sealed(number)}.{names.UPLOAD_NOTE}") <= names.MAX_NAME_BYTES
    assert names.identity_of(batch.sealed(number)) == str(batch)


def test_a_machine_without_a_name_is_unknown() -> None:
    """A batch of a machine that has no name can be read back too."""
    batch = names.new_batch("2026112113", "", bytes(16))
    assert batch.host == "unknown"
    assert names.parse_batch(str(batch)) == batch


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
    assert names.batch_key("p/", names.new_batch("2026112113", "host.1", bytes([0xAB]) * 16), number) == key


@given(hours, long_texts, st.sets(st.integers(0, 10**6), min_size=2), uniques)
def test_batch_keys_differ(hour: str, host: str, numbers: set[int], unique: bytes) -> None:
    """No two numbers of a batch share a key."""
    batch = names.new_batch(hour, host, unique)
    assert len({names.batch_key("", batch, number) for number in numbers}) == len(numbers)


# --- files (specimens) -------------------------------------------------------------------------------------------

RECEIVED = 1_795_269_540_000_000_007
# After a clock that was stepped back by a day and more.
ORDER = RECEIVED + 90_000_000_000_000
DAY = "2026/11/21"


def key(uri: str, media_type: str = "image/png", user: str = "u", again: str = "") -> str:
    """Give the key of a file under no prefix, without what is the same in every one."""
    whole = names.file_key("", user=user, uri=uri, media_type=media_type, received_ns=RECEIVED, order=ORDER, again=again)
    return whole.replace(f"{DAY}/", "").replace(str(ORDER), "T")


@given(long_texts, long_texts, st.sampled_from(["", "2", "ab" * 16]))
@example("日" * 4000, "日" * 4000 + ".jpeg", "ab" * 16)
def test_file_keys_fit_a_store(user: str, uri: str, again: str) -> None:
    """A key is ASCII of at most 1,024 bytes with its companion's suffix, and no part of it climbs a directory."""
    made = names.file_key(
        "p" * 511 + "/", user=user, uri=uri, media_type="image/png", received_ns=RECEIVED, order=ORDER, again=again
    )
    assert len(f"{made}.meta.json".encode("ascii")) <= names.MAX_KEY_BYTES
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
    assert names.content_type(claimed, first_bytes) == expected


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
    assert names.content_type(claimed, b"hello") == expected


def test_a_type_that_the_first_bytes_give_has_no_parameters() -> None:
    """The parameters of an unknown type do not go over to the one that was found."""
    assert names.content_type("application/octet-stream; padding=3", b"%PDF-1.7") == "application/pdf"


@pytest.mark.parametrize("parameters", ["; charset=utf-8", '; x="/a.b"'])
@pytest.mark.parametrize("media_type", ["text/plain", "image/svg+xml", "image/png", "a/b.c"])
def test_parameters_leave_the_key_alone(media_type: str, parameters: str) -> None:
    """The extension in a key comes from the bare type."""
    assert key("a", media_type + parameters) == key("a", media_type)


def test_hours_are_of_utc() -> None:
    """The hour of a name is the hour of UTC."""
    assert names.hour_of(int(datetime(2026, 11, 21, 13, 59, 59, tzinfo=UTC).timestamp()) * names.NANOSECONDS) == "2026112113"
