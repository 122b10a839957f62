"""What a form holds becomes a specimen or reports, on real sockets, and what is wrong with a form is named."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from itertools import permutations

import pytest

from gateway.core.errors import BadRequest, TooLarge
from gateway.intake.form_parser import MAX_HEAD_BYTES
from gateway.intake.forms import MAX_FIELDS, MAX_FIELDS_BYTES, WRAPPING_BYTES, Claims, MultipartForm, boundary_of
from testkit.deadlines import until
from testkit.forms import BOUNDARY, FORM_TYPE, SENT, SentForm, file_part, form, part
from testkit.limited import Gained, delivered, limited, refused
from testkit.running import LocalGateway, Wire, chunked, head, put, running

SEGMENT_LIMIT, REPORT_LIMIT, SPECIMEN_LIMIT = 4096, 1 << 20, 2 << 20
NDJSON = "Content-Type: application/x-ndjson"
every_form = pytest.mark.parametrize("sent", SENT, ids=[sent.client for sent in SENT])


@pytest.fixture(scope="module", params=[True, False], ids=["fast lane", "ordinary lane"])
def gateway(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalGateway]:
    """Run one gateway for many tests, once for each way a small report can take."""
    with running(tmp_path_factory.mktemp("gateway"), limited(fast_lane=request.param)) as started:
        yield started
        assert started.events("defect") == []
        assert started.drafts() == []


@pytest.fixture
def client(gateway: LocalGateway) -> Iterator[Wire]:
    """Connect to the gateway of the module."""
    with gateway.wire() as connection:
        yield connection


@pytest.fixture
def gained(gateway: LocalGateway) -> Gained:
    """Remember what the gateway of the module has kept so far."""
    return Gained(gateway)


def taken(
    body: bytes, *, step: int = 1 << 20, uri: str = "", has_fields: bool = True, max_bytes: int = 1 << 20
) -> tuple[bytes, Claims]:
    """What a form holds, and what it says of that."""
    made = MultipartForm(BOUNDARY.encode(), max_bytes, has_fields=has_fields)
    content = b"".join(made.unwrap([body[at : at + step] for at in range(0, len(body), step)]))
    made.finish()
    return content, made.claims(uri)


# --- the boundary ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("", None),
        ("text/plain; boundary=x", None),
        ("multipart/mixed; boundary=form-data", None),
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data ; charset=utf-8; Boundary="a b"', b"a b"),
        ("multipart/form-data; boundary=a/b=c", b"a/b=c"),
        ("multipart/form-data; boundary=" + "x" * 70, b"x" * 70),
    ],
)
def test_a_form_is_known_by_its_type(content_type: str, expected: bytes | None) -> None:
    """A body is a form where its type says so, and then the type has its boundary, in quotes or not."""
    assert boundary_of(content_type) == expected


@pytest.mark.parametrize("parameters", ["", ";", "; boundary", "; boundary=", '; boundary=""', '; boundary="a', "; x=1"])
def test_a_form_without_boundary_is_refused(parameters: str) -> None:
    """A form whose type names no boundary is refused, and the error says whose field that is."""
    with pytest.raises(BadRequest, match="names no boundary"):
        boundary_of(f"multipart/form-data{parameters}")


@pytest.mark.parametrize("boundary", ["x" * 71, "日", '"\x01"', '"\udcff"'])
def test_an_impossible_boundary_is_refused(boundary: str) -> None:
    """A boundary that RFC 2046 does not allow is refused."""
    with pytest.raises(BadRequest, match="not 1 to 70 printable"):
        boundary_of(f"multipart/form-data; boundary={boundary}")


# --- the parts ---------------------------------------------------------------------------------------------------


@every_form
@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_forms_of_real_clients_are_understood(sent: SentForm, step: int) -> None:
    """The file, its name, its type and the fields of a form are what the client was given, however the body is cut."""
    boundary = boundary_of(sent.content_type)
    assert boundary is not None
    body = gzip.decompress(sent.body) if sent.encoding else sent.body
    made = MultipartForm(boundary, len(sent.file), has_fields=True)
    assert b"".join(made.unwrap([body[at : at + step] for at in range(0, len(body), step)])) == sent.file
    made.finish()
    assert made.claims("") == Claims(sent.filename, sent.file_type, sent.filename, sent.fields)


def test_the_order_of_parts_does_not_matter() -> None:
    """Fields count the same before and after the file."""
    parts = [part(b"1", 'name="x"'), part(b"2", 'name="uri"'), file_part(b"data")]
    for order in permutations(parts):
        assert taken(form(*order)) == (b"data", Claims("2", "", "a.png", (("x", "1"),)))


@pytest.mark.parametrize(
    ("query", "field", "filename", "expected"),
    [
        ("q", b"f", "n", Claims("q", "", "n", (("uri", "f"),))),
        ("", b"f", "n", Claims("f", "", "n")),
        ("", b"", "n", Claims("n", "", "n", (("uri", ""),))),
        ("", b"f", "", Claims("f", "", "")),
        ("q", b"", "", Claims("q", "", "", (("uri", ""),))),
        ("", b"\xff%", "n", Claims("%FF%25", "", "n")),
    ],
)
def test_what_names_the_file(query: str, field: bytes, filename: str, expected: Claims) -> None:
    """The query counts before the field `uri`, and that before the filename; what does not count stays what it is."""
    assert taken(form(part(field, 'name="uri"'), file_part(b"", filename)), uri=query)[1] == expected


def test_of_two_uris_the_first_counts() -> None:
    """A second field `uri` is a field like any other."""
    claims = taken(form(part(b"1", 'name="uri"'), part(b"2", 'name="uri"'), file_part(b"")))[1]
    assert claims == Claims("1", "", "a.png", (("uri", "2"),))


def test_a_file_that_nothing_names_is_refused() -> None:
    """Without a uri and a filename nobody knows what the file is."""
    with pytest.raises(BadRequest, match="neither the query nor a field uri nor a filename"):
        taken(form(part(b"", 'name="uri"'), file_part(b"x", "")))


FAULTS = {
    "no part": (b"", "no part with a filename"),
    "no file": (part(b"x"), "no part with a filename"),
    "two files": (file_part(b"1") + part(b"x") + file_part(b"2"), "parts 1 and 3 of the form are both a file"),
    "no disposition": (f"--{BOUNDARY}\r\n\r\nx\r\n".encode(), "part 1 .* no Content-Disposition such as"),
    "another disposition": (b"--%b\r\nContent-Disposition: attachment; name=x\r\n\r\nx\r\n" % BOUNDARY.encode(), "such as"),
    "a malformed disposition": (part(b"x", 'name="f'), "such as"),
    "no name": (file_part(b"1") + part(b"x", "x=y"), "part 2 .* no name"),
    "an empty name": (part(b"x", 'name=""'), "part 1 .* no name"),
    "a filename* in another charset": (part(b"x", "name=f; filename*=x''y"), r"filename\* that is not UTF-8"),
    "base64": (file_part(b"eA==", "a", "Content-Transfer-Encoding: BASE64"), "content-transfer-encoding: 'BASE64'"),
    "a coded part": (file_part(b"x", "a", "Content-Encoding: gzip"), "content-encoding: 'gzip'"),
    "a head that is too long": (file_part(b"x", "a" * MAX_HEAD_BYTES), "head of part 1 .* larger than 8192"),
    "too many fields": (
        b"".join(part(b"", f"name=f{n}") for n in range(MAX_FIELDS + 1)) + file_part(b""),
        "more than 64 fields .* 'f64'",
    ),
}


@pytest.mark.parametrize(("parts", "fault"), FAULTS.values(), ids=FAULTS.keys())
def test_what_is_wrong_with_a_part_is_named(parts: bytes, fault: str) -> None:
    """A form with a part that cannot be taken is refused, and the error says which and why."""
    with pytest.raises(BadRequest, match=fault):
        taken(form(parts))


@pytest.mark.parametrize("encoding", ["7bit", "8bit", "Binary"])
def test_a_part_that_is_sent_as_it_is(encoding: str) -> None:
    """A transfer encoding that changes nothing is none."""
    assert taken(form(file_part(b"\xff", "a", f"Content-Transfer-Encoding: {encoding}")))[0] == b"\xff"


def test_fields_are_bounded() -> None:
    """As many fields and bytes of fields as are allowed are taken, and one byte more is refused with its field."""
    names = [f"f{number}" for number in range(MAX_FIELDS - 1)]
    rest = MAX_FIELDS_BYTES - sum(map(len, names)) - 3
    parts = [part(b"", f"name={name}") for name in names]
    fields = taken(form(file_part(b""), *parts, part(b"x" * rest, "name=big")))[1].fields
    assert (len(fields), fields[-1]) == (MAX_FIELDS, ("big", "x" * rest))
    with pytest.raises(TooLarge, match=r"'big' .* 16384 bytes"):
        taken(form(file_part(b""), *parts, part(b"x" * (rest + 1), "name=big")))


@pytest.mark.parametrize("has_fields", [True, False])
def test_what_a_form_holds_is_bounded(has_fields: bool) -> None:
    """The limit is one of what the form holds, not of the form."""
    body = form(file_part(b"x" * 1000))
    assert len(taken(body, max_bytes=1000, has_fields=has_fields)[0]) == 1000
    with pytest.raises(TooLarge, match="999 bytes"):
        taken(body, max_bytes=999, has_fields=has_fields)


def test_all_that_a_form_may_have_fits_its_wrapping() -> None:
    """A form with everything at its bound is no larger than what it holds and its wrapping."""
    head_of_part = "x: " + "y" * (MAX_HEAD_BYTES - 200)
    parts = [part(b"", f"name=f{number}", head_of_part) for number in range(MAX_FIELDS)]
    body = b"x" * 60_000 + b"\r\n" + form(*parts, file_part(b"", "a", head_of_part)) + b"x" * 5000
    assert taken(body)[0] == b""
    assert len(body) + MAX_FIELDS_BYTES < WRAPPING_BYTES


@pytest.mark.parametrize("disposition", ["name=r", 'name="r"; filename="r.json"'])
def test_any_one_part_is_the_reports(disposition: str) -> None:
    """A form of reports holds one part, with a filename or without."""
    made = MultipartForm(BOUNDARY.encode(), 100, has_fields=False)
    assert b"".join(made.unwrap([form(part(b"{}", disposition, "Content-Type: a/b"))])) == b"{}"
    made.finish()
    assert made.content_type == "a/b"


# --- specimens ---------------------------------------------------------------------------------------------------


@every_form
@pytest.mark.parametrize("in_chunks", [True, False])
def test_the_file_of_a_form_is_the_specimen(sent: SentForm, in_chunks: bool, gateway: LocalGateway, client: Wire) -> None:
    """What real clients send as a form is kept as the file alone, with its filename and the fields in the metadata."""
    uri = f"{sent.client}-{in_chunks}".replace(" ", "+")
    path = f"/specimen?uri={uri}"
    middle = len(sent.body) // 3
    if in_chunks:
        request = chunked(path, sent.body[:middle], sent.body[middle:], fields=sent.head)
    else:
        request = put(path, sent.body, *sent.head)
    assert client.ask(request).status == 204
    folder = gateway.objects / "specimen"

    def mine() -> list[str]:
        keys = [str(found.relative_to(folder)) for found in folder.rglob("*") if found.is_file()]
        return [key for key in keys if gateway.metadata_of(key)["uri"] == f"{sent.client}-{in_chunks}"]

    (key,) = until(mine, "the specimen to be delivered")
    assert (folder / key).read_bytes() == sent.file
    metadata = gateway.metadata_of(key)
    assert "filename" in metadata
    assert json.loads(metadata.get("fields", "[]")) == [list(field) for field in sent.fields]


def test_the_filename_names_a_specimen(gateway: LocalGateway, client: Wire) -> None:
    """Without a uri the filename is what the key is made of."""
    body = b"named by its file"
    assert client.ask(put("/specimen", form(file_part(body, "dir/photo.HEIC")), FORM_TYPE, method="POST")).status == 204
    key, metadata = delivered(gateway, body)
    assert "/photo." in key
    assert key.endswith(".heic")
    assert (metadata["uri"], metadata["filename"]) == ("dir/photo.HEIC", "dir/photo.HEIC")
    assert "fields" not in metadata


def test_many_fields_stand_beside_the_specimen(gateway: LocalGateway, client: Wire) -> None:
    """Fields that do not fit the metadata are found whole in the object beside the specimen."""
    body, value = b"with many fields", "日" * 1000
    assert client.ask(put("/specimen", form(file_part(body), part(value.encode(), 'name="long"')), FORM_TYPE)).status == 204
    key, metadata = delivered(gateway, body)
    assert "fields" not in metadata
    beside = json.loads((gateway.objects / "specimen" / f"{key}.meta.json").read_bytes())
    assert (beside["filename"], beside["fields"]) == ("a.png", [["long", value]])


@pytest.mark.parametrize("in_chunks", [True, False])
def test_the_limit_is_of_the_file(in_chunks: bool, gateway: LocalGateway) -> None:
    """A file of exactly the limit is taken in a form, and one byte more is a 413 that keeps nothing."""
    for size, status in ((SPECIMEN_LIMIT, 204), (SPECIMEN_LIMIT + 1, 413)):
        body = form(part(b"x", 'name="a"'), file_part(b"\0" * size, f"limit-{in_chunks}.bin"))
        with gateway.wire() as client:
            request = chunked("/specimen", body, fields=(FORM_TYPE,)) if in_chunks else put("/specimen", body, FORM_TYPE)
            answer = client.ask(request)
            assert answer.status == status
            if status == 413:
                assert str(SPECIMEN_LIMIT) in refused(answer, 413, "too_large")
    (stored,) = until(lambda: list((gateway.objects / "specimen").rglob(f"limit-{in_chunks}.*")), "the specimen")
    assert stored.stat().st_size == SPECIMEN_LIMIT
    assert gateway.drafts() == []


def test_a_form_that_cannot_be_taken_is_refused_at_once(client: Wire) -> None:
    """A form far over the limit, or of a file that is, is refused from its head alone."""
    answer = client.ask(head("PUT /specimen", f"Content-Length: {SPECIMEN_LIMIT + WRAPPING_BYTES + 1}", FORM_TYPE))
    refused(answer, 413, "too_large")


BAD_BODIES = {
    "no form": b"just bytes",
    "cut short": form(file_part(b"x"))[:-8],
    "without its last boundary": file_part(b"x" * 10_000),
    "two files": form(file_part(b"1"), file_part(b"2")),
    "no file": form(part(b"1")),
    "empty": b"",
    "unnamed": form(file_part(b"1", "")),
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_a_bad_form_keeps_nothing(body: bytes, encoding: str, gateway: LocalGateway, client: Wire) -> None:
    """A form that is not one, or holds no one file, is a 400 after which nothing of it is there."""
    before = set((gateway.cache / "specimen").iterdir())
    fields = (FORM_TYPE, *([f"Content-Encoding: {encoding}"] if encoding else []))
    sent = gzip.compress(body) if encoding else body
    for request in (put("/specimen", sent, *fields), chunked("/specimen", sent[:5], sent[5:], fields=fields)):
        assert "form" in refused(client.ask(request), 400, "bad_request") or body == BAD_BODIES["unnamed"]
    # What an earlier test sent may still be on its way out.
    assert set((gateway.cache / "specimen").iterdir()) <= before
    assert gateway.drafts() == []


@pytest.mark.parametrize("path", ["/specimen", "/specimen?uri=a", "/usage"])
def test_a_type_without_boundary_is_refused(path: str, client: Wire, gained: Gained) -> None:
    """A form without a boundary is a 400, whatever the body looks like."""
    message = refused(client.ask(put(path, b'{"a":1}', "Content-Type: multipart/form-data")), 400, "bad_request")
    assert "names no boundary" in message
    assert gained.lines() == []


def test_a_form_too_large_for_one_piece(gateway: LocalGateway) -> None:
    """A form of more than a megabyte on a connection of its own, which would be read past the parser, is a form all the same."""
    body = (b"\r\n--" + BOUNDARY.encode() + b"-") * (SPECIMEN_LIMIT // 20)
    with gateway.wire() as client:
        client.send(head("PUT /specimen?uri=piece.bin", f"Content-Length: {len(form(file_part(body)))}", FORM_TYPE))
        whole = form(file_part(body))
        assert client.ask(whole[:100_000] + whole[100_000:]).status == 204
        assert client.ask(put("/specimen?uri=next.bin", b"next")).status == 204
    (stored,) = until(lambda: list((gateway.objects / "specimen").rglob("piece.*")), "the specimen")
    assert stored.read_bytes() == body


def test_urlencoded_bytes_are_a_specimen(gateway: LocalGateway, client: Wire) -> None:
    """What `curl -d` sends is no form here: its bytes are the file."""
    body = b"a=1&b=%20c"
    request = put("/specimen?uri=sent.by.curl", body, "Content-Type: application/x-www-form-urlencoded", method="POST")
    assert client.ask(request).status == 204
    assert delivered(gateway, body)[1]["uri"] == "sent.by.curl"


# --- reports -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("disposition", ["name=report", 'name="report"; filename="report.json"'])
@pytest.mark.parametrize("encoding", ["", "gzip"])
@pytest.mark.parametrize("size", [10, SEGMENT_LIMIT, SEGMENT_LIMIT + 1, 600_000, REPORT_LIMIT])
def test_the_part_of_a_form_is_the_report(size: int, encoding: str, disposition: str, client: Wire, gained: Gained) -> None:
    """One part of any size is a report byte for byte, up to the limit of a report."""
    report = b'"%b"' % (b"0123456789abcdef" * (size // 16 + 1))[: size - 2]
    body = form(part(report, disposition))
    fields = (FORM_TYPE, *([f"Content-Encoding: {encoding}"] if encoding else []))
    sent = gzip.compress(body) if encoding else body
    assert client.ask(put("/usage", sent, *fields)).status == 204
    assert client.ask(chunked("/usage", sent[:50], sent[50:], fields=fields)).status == 204
    assert gained.lines() == [report, report]


@pytest.mark.parametrize("count", [3, 50_000])
def test_many_reports_in_the_part_of_a_form(count: int, client: Wire, gained: Gained) -> None:
    """A part that is NDJSON holds many reports, and a bad line of it is named."""
    lines = [b'{"row":%d}' % number for number in range(count)]
    assert client.ask(put("/usage", form(part(b"\n".join(lines), "name=r", NDJSON)), FORM_TYPE)).status == 204
    assert gained.lines() == lines
    message = refused(
        client.ask(put("/usage", form(part(b"\n".join([*lines, b"{"]), "name=r", NDJSON)), FORM_TYPE)), 400, "bad_request"
    )
    assert message.startswith(f"line {count + 1}: ")
    assert "not JSON" in refused(client.ask(put("/usage", form(part(b"1\n2", "name=r")), FORM_TYPE)), 400, "bad_request")


@pytest.mark.parametrize("parts", [(), (part(b"1"), part(b"2")), (file_part(b"{}"), part(b"2", 'name="uri"'))])
def test_a_form_of_reports_has_one_part(parts: tuple[bytes, ...], client: Wire, gained: Gained) -> None:
    """No part, or more than one, is a 400 that keeps nothing."""
    message = refused(client.ask(put("/usage", form(*parts), FORM_TYPE)), 400, "bad_request")
    assert "both a part" in message or "no part, which is the body" in message
    assert gained.lines() == []


def test_a_report_in_a_form_over_the_limit(client: Wire, gained: Gained) -> None:
    """A report of one byte more than its limit is a 413 in a form, too."""
    report = b'"%b"' % (b"x" * (REPORT_LIMIT - 1))
    refused(client.ask(put("/usage", form(part(report)), FORM_TYPE)), 413, "too_large")
    assert gained.lines() == []
