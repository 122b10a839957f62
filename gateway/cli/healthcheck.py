"""The subcommand `healthcheck`: asks a running gateway, with nothing but a socket.

It asks where the gateway listens: what the flags say, else the environment, else the configuration file. That is read here
only as far as it says where, and leniently: whether it is right is the concern of `check-config`.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Iterator

from gateway.cli.parser import CONFIG_FILE, Arguments

HEALTHY = 0
NOT_HEALTHY = 1
# An address for all of a family is one to listen on, and none to ask.
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_ANY = ("::1", "127.0.0.1")


def healthcheck(arguments: list[str]) -> int:
    """Ask `/health`, and return 0 if the answer is 200, else 1 with a line on STDERR."""
    options = _parser().parse_args(arguments)
    try:
        _complete(options)
        status = _status(options)
    except (OSError, ValueError) as error:
        print(f"not healthy: {error}", file=sys.stderr)  # noqa: T201 (the answer of a subcommand)
        return NOT_HEALTHY
    if status != 200:
        print(f"not healthy: status {status}", file=sys.stderr)  # noqa: T201 (as above)
        return NOT_HEALTHY
    return HEALTHY


def _parser() -> argparse.ArgumentParser:
    parser = Arguments(
        prog="lightfile6-insights-gateway healthcheck",
        description="Ask a running gateway whether it is healthy: exit code 0 if so, 1 if not.",
    )
    parser.add_argument("-p", "--port", type=int, help="default $PORT, else 8080")
    parser.add_argument("--host", help="default: what listen.host says, else ::1, and 127.0.0.1 if nobody listens there")
    parser.add_argument("--unix", metavar="PATH", help="ask at a Unix socket; default: what listen.unix says, unless -p is given")
    parser.add_argument("-c", "--config", metavar="FILE", help=f"where listen stands; default {CONFIG_FILE}")
    parser.add_argument(
        "--tls",
        action="store_true",
        help="the gateway has a certificate, which is not verified here; default: where listen.tls_certificate is set",
    )
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds, default 5")
    return parser


# --- where to ask -------------------------------------------------------------------------------------------------


def _complete(options: argparse.Namespace) -> None:
    """Fill in what no flag says; ValueError if that makes no sense."""
    listen = _listen(options.config)
    options.tls = options.tls or bool(listen.get("tls_certificate"))
    if options.unix is None and options.port is None and options.host is None:
        options.unix = listen.get("unix")
    host = options.host if options.host is not None else listen.get("host")
    options.hosts = [str(each).strip() for each in (host if isinstance(host, list) else str(host or "").split(","))]
    if options.port is None:
        options.port = _port(os.environ.get("PORT") or "8080")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"the variable PORT is {text!r}, which is no port")
    return int(text)


def _listen(file: str | None) -> dict[str, object]:
    """The section `listen` of the configuration, the environment over the file."""
    found: dict[str, object] = {}
    if file is not None or os.access(CONFIG_FILE, os.R_OK):
        found = _section(file or CONFIG_FILE)
    for name in ("host", "unix", "tls_certificate"):
        if (value := os.environ.get(f"LIGHTFILE6_LISTEN_{name.upper()}")) is not None:
            found[name] = value
    return found


def _section(file: str) -> dict[str, object]:
    import yaml

    with open(file, "rb") as source:
        try:
            root = yaml.safe_load(source)
        except yaml.YAMLError as error:
            raise ValueError(f"{file} is not YAML; check-config says where") from error
    section = root.get("listen") if isinstance(root, dict) else None
    return dict(section) if isinstance(section, dict) else {}


# --- the question -------------------------------------------------------------------------------------------------


def _status(options: argparse.Namespace) -> int:
    """Ask at the first place where somebody listens; OSError if nobody does, ValueError if it is no answer."""
    if options.unix:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(options.timeout)
            connection.connect(str(options.unix))
            return _ask(connection, "localhost")
    refused: OSError | None = None
    for host in _asked(options.hosts):
        try:
            plain = socket.create_connection((host, options.port), options.timeout)
        except OSError as error:
            # One family may not be there; of several addresses the gateway listens on all or on none.
            refused = refused or error
            continue
        with plain, _wrapped(plain, host) if options.tls else plain as connection:
            return _ask(connection, _field(host))
    raise refused or ValueError("there is no address to ask")


def _asked(hosts: list[str]) -> Iterator[str]:
    for host in hosts:
        if host:
            yield _LOOPBACK.get(host, host)
        else:
            yield from _ANY


def _field(host: str) -> str:
    """A host as the field Host has it: an IPv6 address in brackets, without the zone, which means something here only."""
    return f"[{host.partition('%')[0]}]" if ":" in host else host


def _ask(connection: socket.socket, host: str) -> int:
    connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("ascii"))
    answer = connection.recv(4096)
    version, _, rest = answer.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError("what listens there does not speak HTTP")
    return int(rest[:3])


def _wrapped(plain: socket.socket, host: str) -> socket.socket:
    import ssl

    context = ssl.create_default_context()
    # The question is whether the process answers, asked from its own machine; its name there is in no certificate.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(plain, server_hostname=host)
