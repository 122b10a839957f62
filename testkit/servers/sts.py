"""What stands on loopback in place of AWS: the services that give temporary credentials, and a door to the store."""

from __future__ import annotations

import asyncio
import json
import re
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import urllib3
from minio.credentials.credentials import Credentials
from minio.credentials.providers import AssumeRoleProvider

from testkit.deadlines import TIMEOUT_FACTOR
from testkit.servers.minio import Minio

ROLE_ARN = "arn:aws:iam::123456789012:role/gateway"
CONTAINER_PATH = "/container"
_IMDS_TOKEN_PATH = "/latest/api/token"
_IMDS_ROLE_PATH = "/latest/meta-data/iam/security-credentials/"
_IMDS_TOKEN = "token-of-the-instance"
_IMDS_ROLE = "role-of-the-instance"
_SSO_PATH = "/federation/credentials"
_STS_ACTIONS = frozenset({"AssumeRole", "AssumeRoleWithWebIdentity"})

# --- certificates ------------------------------------------------------------------------------------------------

# Good for nothing but these tests: a private authority, and what it has signed for `localhost` and 127.0.0.1.
AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBqjCCAVGgAwIBAgIUA1KydlRWaaAcbvabrui+M2Q2K7UwCgYIKoZIzj0EAwIw
IjEgMB4GA1UEAwwXUHJpdmF0ZSBDQSBvZiB0aGUgdGVzdHMwIBcNMjYxMTIxMTcy
MTQwWhgPMjEyNjEwMjgxNzIxNDBaMCIxIDAeBgNVBAMMF1ByaXZhdGUgQ0Egb2Yg
dGhlIHRlc3RzMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEBC/0/MdjB5R4pUJK
el9MT/X6WmY7vu+RXwtzE2ZmLjxw5enIjhW8cu6g3tuvpAw10AuCa5jhlIt9ysDz
OEm7M6NjMGEwHQYDVR0OBBYEFKEbc99jyR1d1q8eJ45+Rz8g52JvMB8GA1UdIwQY
MBaAFKEbc99jyR1d1q8eJ45+Rz8g52JvMA8GA1UdEwEB/wQFMAMBAf8wDgYDVR0P
AQH/BAQDAgEGMAoGCCqGSM49BAMCA0cAMEQCICQzbqrMjxr5SHfQLNXnq/qsxirz
e1BqU6+/80p4SWNgAiB1y7JHS10YFobtOpzDabfo8av6zFGQa5Ek8hkNn0ZEpw==
-----END CERTIFICATE-----
"""
_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBzDCCAXOgAwIBAgIUeD/LJcTvDZpxm3nCv+3IX/JQsJEwCgYIKoZIzj0EAwIw
IjEgMB4GA1UEAwwXUHJpdmF0ZSBDQSBvZiB0aGUgdGVzdHMwIBcNMjYxMTIxMTcy
MTQwWhgPMjEyNjEwMjgxNzIxNDBaMBQxEjAQBgNVBAMMCWxvY2FsaG9zdDBZMBMG
ByqGSM49AgEGCCqGSM49AwEHA0IABFHKIydUL2Qg3zE1iFMGtDqqrPzQTsLTJ9Dz
/A6a/i3PqVrLREDBbLGWu4fxDeVbVTBTtYbFAopTINiaF6eyKcSjgZIwgY8wGgYD
VR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMAwGA1UdEwEB/wQCMAAwDgYDVR0PAQH/
BAQDAgeAMBMGA1UdJQQMMAoGCCsGAQUFBwMBMB0GA1UdDgQWBBT1DYI8kI5kojsM
iDYtjfgIJwbopjAfBgNVHSMEGDAWgBShG3PfY8kdXdavHieOfkc/IOdibzAKBggq
hkjOPQQDAgNHADBEAiA0zlmnmubMsWhZJbdUneLVldyD7cZZWKwZ+X0p6MdkjwIg
U6xs+CIb6t0g2S4rNrAoCywIt82VY+N4UX2tKn2/7LU=
-----END CERTIFICATE-----
"""
_KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgCofc3GHVvhViMZq+
QN7zDwSiv95T/wQGo0uIJ5ok6zChRANCAARRyiMnVC9kIN8xNYhTBrQ6qqz80E7C
0yfQ8/wOmv4tz6lay0RAwWyxlruH8Q3lW1UwU7WGxQKKUyDYmhensinE
-----END PRIVATE KEY-----
"""


def https(folder: Path) -> ssl.SSLContext:
    """The side of a server whose certificate the private authority has signed."""
    pair = folder / "server.pem"
    pair.write_text(_KEY + _CERTIFICATE)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair)
    return context


# --- temporary credentials ---------------------------------------------------------------------------------------


def temporary(minio: Minio) -> Credentials:
    """New temporary credentials, good for an hour, which MinIO's own STS gives."""
    with urllib3.PoolManager(timeout=urllib3.Timeout(10 * TIMEOUT_FACTOR)) as pool:
        provider = AssumeRoleProvider(
            sts_endpoint=minio.endpoint, access_key=minio.access_key, secret_key=minio.secret_key, http_client=pool
        )
        return provider.retrieve()


@dataclass(frozen=True)
class Call:
    """One request for credentials.

    Attributes:
        way: the action of STS, else `container`, `instance` or `sso`.
        token: what it showed to be let in; the access key that it was signed with where that is how it is done.
    """

    way: str
    token: str


@dataclass(frozen=True)
class Fault:
    """An error in place of credentials."""

    status: int
    code: str


class CredentialService:
    """STS, the endpoint of a container, that of an instance, and SSO, all at one address.

    Attributes:
        address: `http://127.0.0.1:PORT`, or with HTTPS.
        lifetime_s: in how many seconds it says that the credentials it gives expire; in fact they hold for an hour.
        tokens: those it lets in, None for any.
        fault: what it answers instead, None for credentials.
        calls: every request for credentials that it answered, whatever the answer.
        given: what it gave.
    """

    def __init__(self, minio: Minio) -> None:
        self.address = ""
        self.lifetime_s = 3600.0
        self.tokens: set[str] | None = None
        self.fault: Fault | None = None
        self.calls: list[Call] = []
        self.given: list[Credentials] = []
        self._minio = minio

    @property
    def access_keys(self) -> set[str]:
        """The access keys that it gave."""
        return {credentials.access_key for credentials in self.given}

    def secrets(self) -> set[str]:
        """What no log may show: of what it gave, and of what it was shown."""
        given = {secret for one in self.given for secret in (one.secret_key, one.session_token)}
        return {secret for secret in given | {call.token for call in self.calls} if secret}

    def answer(self, method: str, url: str, headers: Mapping[str, str], body: bytes) -> tuple[int, str]:
        """The status and the text that a request is answered with."""
        path, query = urlsplit(url).path, parse_qs(urlsplit(url).query)
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if (action := form.get("Action")) in _STS_ACTIONS:
            token = form.get("WebIdentityToken") or "".join(_signers(headers.get("Authorization", "")))
            return self._answered(Call(action, token), _in_xml)
        if path == CONTAINER_PATH:
            return self._answered(Call("container", headers.get("Authorization", "")), _in_json)
        if path == _SSO_PATH and query["role_name"]:
            return self._answered(Call("sso", headers.get("x-amz-sso_bearer_token", "")), _for_sso)
        if (method, path) == ("PUT", _IMDS_TOKEN_PATH):
            return 200, _IMDS_TOKEN
        if path == _IMDS_ROLE_PATH:
            return 200, _IMDS_ROLE
        if path == _IMDS_ROLE_PATH + _IMDS_ROLE:
            return self._answered(Call("instance", headers.get("x-aws-ec2-metadata-token", "")), _in_json)
        return 404, ""

    def _answered(self, call: Call, written: _Writer) -> tuple[int, str]:
        self.calls.append(call)
        fault = self.fault
        if fault is None and self.tokens is not None and call.token not in self.tokens:
            fault = Fault(403, "AccessDenied")
        if fault is not None:
            return fault.status, _ERROR.format(code=fault.code)
        credentials = temporary(self._minio)
        self.given.append(credentials)
        return 200, written(call, credentials, datetime.now(UTC) + timedelta(seconds=self.lifetime_s))


_Writer = Callable[[Call, Credentials, datetime], str]


def _in_xml(call: Call, credentials: Credentials, expires: datetime) -> str:
    """As STS writes them."""
    return (
        f'<{call.way}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{call.way}Result><Credentials>'
        f"<AccessKeyId>{credentials.access_key}</AccessKeyId><SecretAccessKey>{credentials.secret_key}</SecretAccessKey>"
        f"<SessionToken>{credentials.session_token}</SessionToken><Expiration>{_instant(expires)}</Expiration></Credentials>"
        f"<AssumedRoleUser><Arn>{ROLE_ARN}</Arn><AssumedRoleId>AROA:gateway</AssumedRoleId></AssumedRoleUser>"
        f"</{call.way}Result></{call.way}Response>"
    )


def _in_json(_: Call, credentials: Credentials, expires: datetime) -> str:
    """As the endpoints of containers and instances write them."""
    return json.dumps(
        {
            "Code": "Success",
            "AccessKeyId": credentials.access_key,
            "SecretAccessKey": credentials.secret_key,
            "Token": credentials.session_token,
            "Expiration": _instant(expires),
        }
    )


def _for_sso(_: Call, credentials: Credentials, expires: datetime) -> str:
    role = {
        "accessKeyId": credentials.access_key,
        "secretAccessKey": credentials.secret_key,
        "sessionToken": credentials.session_token,
        "expiration": int(expires.timestamp() * 1000),
    }
    return json.dumps({"roleCredentials": role})


def for_process(credentials: Credentials, expires: datetime | None) -> str:
    """As the program that a profile names in `credential_process` writes them."""
    written = {
        "Version": 1,
        "AccessKeyId": credentials.access_key,
        "SecretAccessKey": credentials.secret_key,
        "SessionToken": credentials.session_token,
    }
    return json.dumps(written if expires is None else written | {"Expiration": _instant(expires)})


_ERROR = "<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>on purpose</Message></Error></ErrorResponse>"


def _instant(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _signers(head: str) -> list[str]:
    """The access keys that requests were signed with."""
    return re.findall(r"AWS4-HMAC-SHA256 Credential=([^/]+)/", head)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that is gone; the gateway is killed at the end of a test."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


@contextmanager
def credential_service(minio: Minio, tls: ssl.SSLContext | None = None) -> Iterator[CredentialService]:
    """Run one on a free port, in threads of its own."""
    service = CredentialService(minio)

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, text = service.answer(self.command, self.path, dict(self.headers.items()), body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST = do_PUT = answer  # noqa: N815 (http.server asks for these names)

        def log_message(self, *_: object) -> None:
            """Nothing to the tests' own output."""

    with _Server(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        service.address = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, name="credentials", daemon=True)
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


# --- the door to the store ---------------------------------------------------------------------------------------


class Door:
    """Passes everything on to a MinIO and back, and knows who came.

    Attributes:
        endpoint: `http://127.0.0.1:PORT`, or with HTTPS.
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self._came = bytearray()

    @property
    def access_keys(self) -> set[str]:
        """The access keys that requests were signed with."""
        return set(_signers(self._came.decode("latin-1")))

    async def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, listen: bool) -> None:
        """Pass on what comes until it ends."""
        try:
            while data := await reader.read(65536):
                if listen:
                    self._came += data
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@contextmanager
def door(minio: Minio, tls: ssl.SSLContext | None = None) -> Iterator[Door]:
    """Open one on a free port, in a thread of its own."""
    opened = Door()
    upstream = urlsplit(minio.endpoint)
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back, forth = await asyncio.open_connection(upstream.hostname, upstream.port)
            async with asyncio.TaskGroup() as group:
                group.create_task(opened.pump(reader, forth, listen=True))
                group.create_task(opened.pump(back, writer, listen=False))
        finally:
            writer.close()

    async def serve() -> None:
        try:
            server = await asyncio.start_server(meet, "127.0.0.1", 0, ssl=tls)
            opened.endpoint = f"{'http' if tls is None else 'https'}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            over = asyncio.Event()
            started.set_result((asyncio.get_running_loop(), over))
            await over.wait()
            # Connections that are open still end with the loop, which cancels what serves them.
            server.close()
        except BaseException as error:
            if not started.done():
                started.set_exception(error)
            raise

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="door", daemon=True)
    thread.start()
    loop, over = started.result(30)
    try:
        yield opened
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(30)
