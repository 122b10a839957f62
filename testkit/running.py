"""A running gateway with the local store, and a bare connection to it that hides nothing."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from testkit.deadlines import TIMEOUT_FACTOR, until
from testkit.gateway_process import Answer, Gateway, merged

WAIT_S = 30.0 * TIMEOUT_FACTOR

# Nothing is delivered by itself within a test, and every line of the log can be read by a program.
QUIET: Mapping[str, Any] = {
    "listen": {"host": "127.0.0.1"},
    "aggregation": {"usage_interval": "1h", "error_interval": "1h", "host": "test-host"},
    "spool": {"segment_max_age": "1h", "reserve": 0},
    "log": {"format": "json"},
}
# Said here too: what `--local` takes for a default is shorter.
_INTERVALS = {"LIGHTFILE6_AGGREGATION_USAGE_INTERVAL": "1h", "LIGHTFILE6_AGGREGATION_ERROR_INTERVAL": "1h"}


class LocalGateway(Gateway):
    """The real program as a process of its own, with `--local`: spool and objects under its folder.

    Args:
        folder: where everything of it is.
        settings: sections that are laid over `QUIET`.
        environment: variables that the program gets beside those that every test gives it.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(folder, merged(QUIET, settings or {}), {**_INTERVALS, **(environment or {})})
        self.objects = folder / "objects"

    @property
    def base_url(self) -> str:
        """Where it listens: `http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    def with_config(self) -> tuple[str, ...]:  # type: ignore[override]  # one flag more
        """The arguments that name the configuration, which is written here, and the local store."""
        return (*super().with_config(), "--local", str(self.folder))

    def _spawn(self, command: Sequence[str], environment: Mapping[str, str], stdout: IO[bytes] | None = None) -> None:
        """See `Gateway._spawn`: what it says to who started it does not get into the log."""
        del stdout
        with self.stdout.open("ab") as own:
            super()._spawn(command, environment, own)

    @property
    def stdout(self) -> Path:
        """What the program said to who started it, the log not included."""
        return self.folder / "stdout"

    def wire(self, *, tls: ssl.SSLContext | None = None) -> contextlib.AbstractContextManager[Wire]:
        """A bare connection."""
        return wire(self.port, tls=tls)

    # --- what it keeps --------------------------------------------------------------------------------------------

    def kept(self, stream: str) -> list[bytes]:
        """Every acknowledged line of a report stream that waits in the spool, without line ends, oldest first."""
        lines: list[bytes] = []
        for path in sorted((self.cache / stream).glob("*.json*")):
            *ended, rest = path.read_bytes().split(b"\n")
            assert rest == b"", f"{path} ends in the middle of a line"
            lines += ended
        return lines

    def drafts(self) -> list[Path]:
        """Bodies that are being received."""
        return list((self.cache / "tmp").iterdir())

    def metadata_of(self, key: str, bucket: str = "specimen") -> dict[str, str]:
        """The metadata of a delivered object."""
        found: dict[str, str] = json.loads((self.objects / ".metadata" / bucket / f"{key}.json").read_bytes())
        return found

    def request_line(self, request_id: str) -> dict[str, Any]:
        """The log line of an answered request, waited for."""
        return until(lambda: self._answered(request_id), f"the log line of request {request_id}")[0]

    def _answered(self, request_id: str) -> list[dict[str, Any]]:
        lines = self.events("request done") + self.events("request failed")
        return [line for line in lines if line["request_id"] == request_id]


# --- connections -------------------------------------------------------------------------------------------------


class Wire:
    """One connection: bytes out, answers in."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self._read = b""

    def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.sendall(data)

    def ask(self, data: bytes, *, head: bool = False) -> Answer:
        """Send bytes and read one answer."""
        self.send(data)
        return self.answer(head=head)

    def answer(self, *, head: bool = False) -> Answer:
        """Read one answer, interim ones too; `head` says that it answers a HEAD and so has no body."""
        first, _, fields = self._until(b"\r\n\r\n").partition(b"\r\n")
        version, _, rest = first.partition(b" ")
        assert version in (b"HTTP/1.1", b"HTTP/1.0"), first
        status = int(rest[:3])
        headers: dict[str, str] = {}
        for field in fields.removesuffix(b"\r\n\r\n").split(b"\r\n"):
            name, _, value = field.partition(b":")
            if name:
                headers[name.decode("ascii").lower()] = value.strip().decode("ascii")
        bodiless = head or status < 200 or status in (204, 304)
        return Answer(status, headers, b"" if bodiless else self._exactly(int(headers.get("content-length", "0"))))

    def closed(self) -> bool:
        """Wait for the end of the connection: true if nothing more came before it."""
        try:
            return self._read == b"" and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True

    def silent(self) -> bool:
        """Whether nothing has come so far."""
        self.socket.setblocking(False)
        try:
            self._read += self.socket.recv(65536)
        except BlockingIOError:
            return self._read == b""
        finally:
            self.socket.settimeout(WAIT_S)
        return False

    def reset(self) -> None:
        """Go away without a word, as a machine that loses its power or its network does."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def _until(self, mark: bytes) -> bytes:
        while (end := self._read.find(mark)) < 0:
            self._more()
        end += len(mark)
        found, self._read = self._read[:end], self._read[end:]
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._read) < size:
            self._more()
        found, self._read = self._read[:size], self._read[size:]
        return found

    def _more(self) -> None:
        chunk = self.socket.recv(65536)
        assert chunk, f"the connection ended in the middle of an answer: {self._read!r}"
        self._read += chunk


@contextlib.contextmanager
def wire(port: int, *, tls: ssl.SSLContext | None = None) -> Iterator[Wire]:
    """Open a connection, closed at the end whatever came of it."""
    with contextlib.ExitStack() as stack:
        plain = stack.enter_context(socket.create_connection(("127.0.0.1", port), WAIT_S))
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = stack.enter_context(tls.wrap_socket(plain, server_hostname="localhost")) if tls else plain
        yield Wire(wrapped)


def head(start: str, /, *fields: str | bytes, user: str | None = "alice") -> bytes:
    """The head of a request; `head("PUT /usage", "Content-Length: 2")`."""
    lines = [f"{start} HTTP/1.1".encode(), b"Host: gateway"]
    if user is not None:
        lines.append(f"USER_TOKEN: {user}".encode())
    lines += [field.encode() if isinstance(field, str) else field for field in fields]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def put(path: str, body: bytes, *fields: str | bytes, method: str = "PUT", user: str | None = "alice") -> bytes:
    """A whole request with a Content-Length."""
    return head(f"{method} {path}", f"Content-Length: {len(body)}", *fields, user=user) + body


def chunked(path: str, *chunks: bytes, fields: tuple[str | bytes, ...] = (), user: str | None = "alice") -> bytes:
    """A whole request in chunks."""
    body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks if chunk)
    return head(f"PUT {path}", "Transfer-Encoding: chunked", *fields, user=user) + body + b"0\r\n\r\n"


@contextlib.contextmanager
def running(
    folder: Path, settings: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[LocalGateway]:
    """Start a gateway, and kill it at the end if the test has not stopped it."""
    gateway = LocalGateway(folder, settings, environment)
    try:
        gateway.start()
        yield gateway
    finally:
        gateway.kill()
