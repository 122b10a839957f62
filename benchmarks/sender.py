"""The sender of large bodies, a program of its own: raw sockets, and `sendfile` from memory, so that it costs little.

    python -m benchmarks.sender PORT COUNT EACH SIZE DESCRIPTOR

It sends the first SIZE bytes of the open DESCRIPTOR over COUNT connections at once, EACH times one after the other, and prints
one line of JSON: `{"seconds": <from the first connect to the last answer>, "statuses": [...]}`.
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


def send(port: int, each: int, size: int, source: int, name: str) -> list[int]:
    """PUT a body several times as a specimen and return the statuses of the answers."""
    head = (
        f"PUT /specimen?uri=https%3A%2F%2Fexample.com%2F{name}.bin HTTP/1.1\r\nHost: 127.0.0.1\r\nUSER_TOKEN: alice\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {size}\r\n\r\n"
    )
    statuses = []
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        # A blocking socket: with a timeout Python polls before each call.
        connection.settimeout(None)
        for _ in range(each):
            connection.sendall(head.encode("ascii"))
            sent = 0
            while sent < size:
                sent += os.sendfile(connection.fileno(), source, sent, min(SEND_BYTES, size - sent))
            statuses.append(int(_answer(connection).split(b" ", 2)[1]))
    return statuses


def _answer(connection: socket.socket) -> bytes:
    """The head of an answer, which is all of it where the body was taken."""
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = connection.recv(4096)
        if not piece:
            raise ConnectionError("the connection was closed before the answer")
        answer += piece
    return answer


def main(port: int, count: int, each: int, size: int, source: int) -> None:
    """Send, and print what came of it."""
    with ThreadPoolExecutor(count) as executor:
        begun = time.perf_counter()
        sending = [executor.submit(send, port, each, size, source, f"body-{number}") for number in range(count)]
        statuses = [status for future in sending for status in future.result()]
        seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "statuses": statuses}))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:6]))
