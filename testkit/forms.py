"""Forms as clients send them: the first four were recorded, the others are written as their makers' sources write them."""

from __future__ import annotations

import gzip
from dataclasses import dataclass

PNG = b"\x89PNG\r\n\x1a\n--x\r\n"
MINIDUMP = b"MDMP\x93\xa7\0\0" + bytes(range(256)) * 40


@dataclass(frozen=True)
class SentForm:
    """A form as it was sent, and what is in it.

    Attributes:
        client: who sends such a form.
        content_type: as in the request's head.
        body: as sent.
        file: what the form holds.
        file_type: that the form claims for it.
        filename: likewise.
        fields: the others, in their order.
        encoding: the Content-Encoding.
    """

    client: str
    content_type: str
    body: bytes
    file: bytes
    file_type: str
    filename: str
    fields: tuple[tuple[str, str], ...] = ()
    encoding: str = ""

    @property
    def head(self) -> tuple[str, ...]:
        """The fields that the head of its request has."""
        coded = (f"Content-Encoding: {self.encoding}",) if self.encoding else ()
        return (f"Content-Type: {self.content_type}", *coded)


CURL = SentForm(
    client="curl 7.88.1",
    content_type="multipart/form-data; boundary=------------------------05845fe16ff0067c",
    body=b'--------------------------05845fe16ff0067c\r\nContent-Disposition: form-data; name="photo"; '
    b'filename="a%22b \xe6\x97\xa5.png"\r\nContent-Type: image/png\r\n\r\n'
    + PNG
    + b'\r\n--------------------------05845fe16ff0067c\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    b'--------------------------05845fe16ff0067c\r\nContent-Disposition: form-data; name="title"\r\n\r\n'
    b"\xe6\x97\xa5\xe6\x9c\xac\r\n--------------------------05845fe16ff0067c--\r\n",
    file=PNG,
    file_type="image/png",
    filename='a"b 日.png',
    fields=(("note", "hello"), ("title", "日本")),
)
CURL_PIPE = SentForm(
    client="curl 7.88.1 of a pipe",
    content_type="multipart/form-data; boundary=------------------------420bf8154145fe79",
    body=b'--------------------------420bf8154145fe79\r\nContent-Disposition: form-data; name="file"; filename="x.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\nhello\r\n--------------------------420bf8154145fe79--\r\n",
    file=b"hello",
    file_type="text/plain",
    filename="x.txt",
)
REQUESTS = SentForm(
    client="requests 2.34.2",
    content_type="multipart/form-data; boundary=2b76ef45908935e842de4dff6fcacf82",
    body=b'--2b76ef45908935e842de4dff6fcacf82\r\nContent-Disposition: form-data; name="note"\r\n\r\n\xe6\x97\xa5\xe6\x9c\xac\r\n'
    b'--2b76ef45908935e842de4dff6fcacf82\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n'
    b'--2b76ef45908935e842de4dff6fcacf82\r\nContent-Disposition: form-data; name="file"; '
    b'filename="a%22b \xe6\x97\xa5.png"\r\nContent-Type: image/png\r\n\r\n'
    + PNG
    + b"\r\n--2b76ef45908935e842de4dff6fcacf82--\r\n",
    file=PNG,
    file_type="image/png",
    filename='a"b 日.png',
    fields=(("note", "日本"), ("n", "1")),
)
REQUESTS_BARE = SentForm(
    client="requests 2.34.2 without a type",
    content_type="multipart/form-data; boundary=90789419bf749a923753090f9f1be329",
    body=b'--90789419bf749a923753090f9f1be329\r\nContent-Disposition: form-data; name="file"; filename="note.txt"\r\n\r\n'
    b"hello\r\n--90789419bf749a923753090f9f1be329--\r\n",
    file=b"hello",
    file_type="",
    filename="note.txt",
)
URLLIB3_1 = SentForm(
    client="urllib3 1",
    content_type="multipart/form-data; boundary=5b1a",
    body=b"--5b1a\r\nContent-Disposition: form-data; name*=utf-8''%E5%90%8D\r\n\r\n1\r\n"
    b"--5b1a\r\nContent-Disposition: form-data; name=\"f\"; filename*=utf-8''%E6%97%A5%20%25.png\r\n\r\n"
    + PNG
    + b"\r\n--5b1a--\r\n",
    file=PNG,
    file_type="",
    filename="日 %.png",
    fields=(("名", "1"),),
)
CHROMIUM = SentForm(
    client="Chromium",
    content_type="multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
    body=b'------WebKitFormBoundary7MA4YWxkTrZu0gW\r\nContent-Disposition: form-data; name="caption %22x%22"\r\n\r\n'
    b'two\r\nlines\r\n------WebKitFormBoundary7MA4YWxkTrZu0gW\r\nContent-Disposition: form-data; name="file"; '
    b'filename="C:\\new\\\xe5\x86\x99\xe7\x9c\x9f.png"\r\nContent-Type: image/png\r\n\r\n'
    + PNG
    + b"\r\n------WebKitFormBoundary7MA4YWxkTrZu0gW--\r\n",
    file=PNG,
    file_type="image/png",
    filename="C:\\new\\写真.png",
    fields=(('caption "x"', "two\r\nlines"),),
)
DOTNET = SentForm(
    client=".NET",
    content_type='multipart/form-data; boundary="f0a5cdd6-4f05-4a9a-9b8a-1c8f5a9d6c55"',
    body=b"--f0a5cdd6-4f05-4a9a-9b8a-1c8f5a9d6c55\r\nContent-Type: text/plain; charset=Shift_JIS\r\n"
    b"Content-Disposition: form-data; name=file; filename=a.txt; filename*=utf-8''%E3%81%82.txt\r\n\r\n"
    b"\x82\xa0\r\n--f0a5cdd6-4f05-4a9a-9b8a-1c8f5a9d6c55--\r\n",
    file=b"\x82\xa0",
    file_type="text/plain; charset=Shift_JIS",
    filename="あ.txt",
)
_CRASHPAD_FIELDS = (
    ("guid", "6ac1d0f3-8a1c-4b3b-a5cc-9f3b2d1e0c77"),
    ("prod", "Lightfile6"),
    ("ptype", "browser"),
    ("ver", "1.2.3"),
)
_CRASHPAD_BOUNDARY = b"---MultipartBoundary-WjX3aQ9sT2bKx0LmNv8RyUcE5hGdFo1P---"
_CRASHPAD_TEXTS = b"".join(
    b'--%b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (_CRASHPAD_BOUNDARY, name.encode(), value.encode())
    for name, value in _CRASHPAD_FIELDS
)
CRASHPAD = SentForm(
    client="Crashpad",
    content_type=f"multipart/form-data; boundary={_CRASHPAD_BOUNDARY.decode()}",
    body=gzip.compress(
        _CRASHPAD_TEXTS + b'--%b\r\nContent-Disposition: form-data; name="upload_file_minidump"; filename="5c3e.dmp"\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n%b\r\n--%b--\r\n" % (_CRASHPAD_BOUNDARY, MINIDUMP, _CRASHPAD_BOUNDARY)
    ),
    file=MINIDUMP,
    file_type="application/octet-stream",
    filename="5c3e.dmp",
    fields=_CRASHPAD_FIELDS,
    encoding="gzip",
)
SENT = (CURL, CURL_PIPE, REQUESTS, REQUESTS_BARE, URLLIB3_1, CHROMIUM, DOTNET, CRASHPAD)

# --- forms made for a test ---------------------------------------------------------------------------------------

BOUNDARY = "-b-"
FORM_TYPE = f"Content-Type: multipart/form-data; boundary={BOUNDARY}"


def part(content: bytes, disposition: str = 'name="f"', *fields: str) -> bytes:
    """One part of a form, with its boundary before it."""
    lines = [f"--{BOUNDARY}", f"Content-Disposition: form-data; {disposition}", *fields, "", ""]
    return "\r\n".join(lines).encode() + content + b"\r\n"


def file_part(content: bytes, filename: str = "a.png", *fields: str) -> bytes:
    """A part that is a file."""
    return part(content, f'name="file"; filename="{filename}"', *fields)


def form(*parts: bytes) -> bytes:
    """A whole form."""
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
