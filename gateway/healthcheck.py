"""The subcommand `healthcheck`: asks a running gateway, with nothing but a socket."""

from __future__ import annotations

import os
import socket
import sys

from gateway.arguments import Arguments

HEALTHY = 0
NOT_HEALTHY = 1


def healthcheck(arguments: list[str]) -> int:
    """Ask `/health`, and return 0 if the answer is 200, else 1 with a line on STDERR."""
    parser = Arguments(
        prog="lightfile6-insights-gateway healthcheck",
        description="Ask a running gateway whether it is healthy: exit code 0 if so, 1 if not.",
    )
    parser.add_argument("-p", "--port", type=int, default=os.environ.get("PORT") or "8080", help="default $PORT, else 8080")
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1")
    parser.add_argument(
        "--tls",
        action="store_true",
        default=bool(os.environ.get("LIGHTFILE6_LISTEN_TLS_CERTIFICATE")),
        help="the gateway has a certificate, which is not verified here; default where LIGHTFILE6_LISTEN_TLS_CERTIFICATE is set",
    )
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds, default 5")
    options = parser.parse_args(arguments)
    try:
        status = _ask(options.host, options.port, tls=options.tls, timeout_s=options.timeout)
    except (OSError, ValueError) as error:
        print(f"not healthy: {error}", file=sys.stderr)  # noqa: T201 (what the person who asked wants to see)
        return NOT_HEALTHY
    if status != 200:
        print(f"not healthy: status {status}", file=sys.stderr)  # noqa: T201 (as above)
        return NOT_HEALTHY
    return HEALTHY


def _ask(host: str, port: int, *, tls: bool, timeout_s: float) -> int:
    with socket.create_connection((host, port), timeout_s) as plain:
        connection = _wrapped(plain, host) if tls else plain
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
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
