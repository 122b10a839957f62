"""All rows of hostile clients."""

from __future__ import annotations

from reliability.hostile.bench import GROUP
from reliability.hostile.bodies import run_bombs, run_json
from reliability.hostile.crowds import MANY, aborts, many
from reliability.hostile.descriptors import IDLE, OPEN_FILES, descriptors
from reliability.hostile.slow import SLOW, slow
from reliability.hostile.wire import chunked, half_closed, heads_and_floods, pipelined, rounds
from reliability.row import Row

ROWS: tuple[Row, ...] = (
    Row("hostile-slow", GROUP, f"{SLOW} clients send a byte a second, of heads and of bodies", slow),
    Row("hostile-half-closed", GROUP, "clients shut their side after whole requests, and within one", rounds(half_closed)),
    Row("hostile-pipelined", GROUP, "many requests without waiting, cut anywhere, bad ones among them", rounds(pipelined)),
    Row("hostile-chunked", GROUP, "chunks of wrong sizes, and heads that two servers would read differently", rounds(chunked)),
    Row(
        "hostile-headers",
        GROUP,
        "heads, sizes and trailers that are huge or never end, answers that nobody reads",
        heads_and_floods,
    ),
    Row(
        "hostile-bombs",
        GROUP,
        "bodies that decode to 16 times what is allowed, nested, cut short, with something behind them",
        run_bombs,
    ),
    Row("hostile-json", GROUP, "documents of great depth, odd numbers and odd text, and NDJSON with a bad line in it", run_json),
    Row("hostile-many", GROUP, f"{MANY:,} connections at a time: idle, answered, within a head, within a body", many),
    Row(
        "hostile-descriptors",
        GROUP,
        f"{IDLE} idle connections at a time, where {OPEN_FILES} files may be open",
        descriptors,
    ),
    Row("hostile-aborts", GROUP, "clients go away at every point of a request and of its answer", aborts),
)
