"""The sender of large bodies, a program of its own: raw sockets, and `sendfile` from memory, so that it costs little.

    python -m benchmarks.sender PORT COUNT SIZE DESCRIPTOR

It sends the first SIZE bytes of the open DESCRIPTOR, COUNT times at once, and prints one line of JSON:
`{"seconds": <from the first connect to the last answer>, "statuses": [...]}`.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from concurrent.futures import ThreadPoolExecutor

SEND_BYTES = 8 << 20
TIMEOUT_S = 300.0


def send(port: int, size: int, source: int, name: str) -> int:
    """PUT one body as a specimen and return the status of the answer."""
    head = (
        f"PUT /specimen?uri=https%3A%2F%2Fexample.com%2F{name}.bin HTTP/1.1\r\nHost: 127.0.0.1\r\nUSER_TOKEN: alice\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(head.encode("ascii"))
        # A blocking socket: with a timeout Python polls before each call.
        connection.settimeout(None)
        sent = 0
        while sent < size:
            sent += os.sendfile(connection.fileno(), source, sent, min(SEND_BYTES, size - sent))
        answer = connection.recv(4096)
    return int(answer.split(b" ", 2)[1])


def main(port: int, count: int, size: int, source: int) -> None:
    """Send, and print what came of it."""
    with ThreadPoolExecutor(count) as executor:
        begun = time.perf_counter()
        sending = [executor.submit(send, port, size, source, f"body-{number}") for number in range(count)]
        statuses = [future.result() for future in sending]
        seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "statuses": statuses}))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:5]))
