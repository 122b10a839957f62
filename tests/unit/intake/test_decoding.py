"""Decoding of request bodies: what comes out is what went in, whatever the network cut it into and whoever sent it."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import random
import struct
import subprocess
import sys
import tracemalloc
import zlib
from collections.abc import Callable, Iterator

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import BadRequest, TooLarge, UnsupportedEncoding
from gateway.intake import decoding
from gateway.intake.decoding import PIECE_BYTES, decoder

MIB = 1 << 20
Encode = Callable[[bytes], bytes]


def raw_deflate(data: bytes) -> bytes:
    """Compress without the header and checksum of zlib."""
    return zlib.compress(data)[2:-4]


def plain(data: bytes) -> bytes:
    """Leave as it is."""
    return data


ENCODINGS: dict[str, tuple[str, Encode]] = {
    "none": ("", plain),
    "identity": ("identity", plain),
    "gzip": ("gzip", gzip.compress),
    "x-gzip": ("X-GZip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "zstd": ("zstd", zstd.compress),
    "gzip then zstd": ("gzip, zstd", lambda data: zstd.compress(gzip.compress(data))),
    "deflate then gzip": ("deflate,,identity , GZIP", lambda data: gzip.compress(zlib.compress(data))),
}
COMPRESSED = [name for name, (_, encode) in ENCODINGS.items() if encode is not plain]
every_encoding = pytest.mark.parametrize("name", ENCODINGS)
every_compression = pytest.mark.parametrize("name", COMPRESSED)

# Random bytes, and long runs that a coding shrinks to nothing.
bodies = st.one_of(
    st.binary(max_size=3000),
    st.builds(lambda part, times: part * times, st.binary(min_size=1, max_size=20), st.integers(0, 60_000)),
)


def cut(body: bytes, points: list[int]) -> Iterator[bytes]:
    """Cut a body into chunks; some may be empty."""
    edges = [0, *sorted(point % (len(body) + 1) for point in points), len(body)]
    return (body[start:end] for start, end in itertools.pairwise(edges))


def decoded(encoding: str, chunks: Iterator[bytes] | list[bytes], max_bytes: int = 64 * MIB) -> bytes:
    """Decode a whole body."""
    decode = decoder(encoding, max_bytes)
    out = b"".join(piece for chunk in chunks for piece in decode.feed(chunk))
    decode.finish()
    return out


@every_encoding
@given(body=bodies, points=st.lists(st.integers(0, 1 << 20), max_size=12))
def test_round_trip(name: str, body: bytes, points: list[int]) -> None:
    """A body comes out as it was, wherever the network cut it."""
    encoding, encode = ENCODINGS[name]
    assert decoded(encoding, cut(encode(body), points)) == body


@every_encoding
def test_byte_by_byte(name: str) -> None:
    """A body that trickles in byte by byte comes out as it was."""
    encoding, encode = ENCODINGS[name]
    body = b'{"n": 12345678901234567890, "text": "abcabcabc"}' * 3
    assert decoded(encoding, [bytes([byte]) for byte in encode(body)]) == body


@every_encoding
def test_sizes_near_a_piece(name: str) -> None:
    """A body that ends just after a full piece is given out to its end."""
    encoding, encode = ENCODINGS[name]
    for size in range(PIECE_BYTES - 4, PIECE_BYTES + 300):
        assert len(decoded(encoding, [encode(bytes(size))])) == size


def test_raw_deflate_that_looks_wrapped() -> None:
    """Raw deflate is told from zlib even where its first bytes happen to pass the check of a zlib header."""
    bodies = [random.Random(seed).randbytes(10) for seed in range(200)]
    alike = [body for body in bodies if int.from_bytes(raw_deflate(body)[:2], "big") % 31 == 0]
    assert alike
    for body in alike:
        assert decoded("deflate", [raw_deflate(body)]) == body


def test_gzip_header_in_two_chunks() -> None:
    """A gzip header with every optional field may be cut anywhere."""
    body = b"hello world " * 50
    head = b"\x1f\x8b\x08\x1e\0\0\0\0\0\xff" + struct.pack("<H", 5) + b"EXTRA" + b"name.txt\0" + b"a comment\0"
    head += struct.pack("<H", zlib.crc32(head) & 0xFFFF)
    stream = head + raw_deflate(body) + struct.pack("<II", zlib.crc32(body), len(body))
    for point in range(len(stream)):
        assert decoded("gzip", [stream[:point], stream[point:]]) == body


@given(parts=st.lists(st.binary(max_size=200), min_size=1, max_size=6), points=st.lists(st.integers(0, 2000), max_size=6))
@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_members(name: str, parts: list[bytes], points: list[int]) -> None:
    """Several gzip members or zstd frames one after the other are one body."""
    encoding, encode = ENCODINGS[name]
    assert decoded(encoding, cut(b"".join(map(encode, parts)), points)) == b"".join(parts)


def test_skippable_frames() -> None:
    """Skippable zstd frames are skipped."""
    skippable = struct.pack("<II", 0x184D2A50, 5) + b"aside"
    assert decoded("zstd", [skippable + zstd.compress(b"one") + skippable + zstd.compress(b"two")]) == b"onetwo"


@every_compression
def test_truncated(name: str) -> None:
    """A compressed body that ends early, even before its first byte, is refused at its end."""
    encoding, encode = ENCODINGS[name]
    stream = encode(random.Random(1).randbytes(100) + b"a" * 100)
    for end in range(len(stream)):
        with pytest.raises(BadRequest, match="is cut short"):
            decoded(encoding, [stream[:end]])


@every_compression
@pytest.mark.parametrize("together", [True, False])
def test_trailing_garbage(name: str, together: bool) -> None:
    """Anything after the end of a compressed body is refused, in the same chunk or the next."""
    encoding, encode = ENCODINGS[name]
    stream, rest = encode(b"x" * 1000), b'{"more": 1}'
    with pytest.raises(BadRequest, match="something follows"):
        decoded(encoding, [stream + rest] if together else [stream, rest])


@every_compression
def test_corrupt(name: str) -> None:
    """A corrupt body is refused with a sentence that names the coding."""
    encoding, encode = ENCODINGS[name]
    stream = bytearray(encode(b" ".join(b"%d" % number for number in range(3000))))
    for at in range(6, len(stream) // 2):
        stream[at] ^= 0xFF
    with pytest.raises(BadRequest, match=r"^the (gzip|deflate|zstd) body is (corrupt|cut short)"):
        decoded(encoding, [bytes(stream)])


@every_encoding
@given(noise=st.binary(max_size=400), keep=st.integers(0, 60), points=st.lists(st.integers(0, 500), max_size=4))
def test_noise(name: str, noise: bytes, keep: int, points: list[int]) -> None:
    """Whatever bytes arrive, the answer is a body, BadRequest or TooLarge and nothing else."""
    encoding, encode = ENCODINGS[name]
    with contextlib.suppress(BadRequest, TooLarge):
        decoded(encoding, cut(encode(b'{"a": [1, 2, 3]}' * 5)[:keep] + noise, points), max_bytes=1000)


@every_encoding
@pytest.mark.parametrize("size", [1, 5000, 700_000])
def test_limit(name: str, size: int) -> None:
    """A body of exactly the limit passes; one byte more is too large, and no more than the limit is given out."""
    encoding, encode = ENCODINGS[name]
    body = random.Random(3).randbytes(size + 1)
    assert decoded(encoding, [encode(body[:size])], max_bytes=size) == body[:size]
    pieces: list[bytes] = []
    with pytest.raises(TooLarge, match=f"limit of {size} bytes"):
        pieces.extend(decoder(encoding, size).feed(encode(body)))
    assert body.startswith(b"".join(pieces))
    assert sum(map(len, pieces)) <= size


def bomb(name: str, mib: int) -> bytes:
    """So many MiB of zeroes, encoded without ever holding them."""
    wbits = {"gzip": 31, "deflate": 15, "raw deflate": -15}.get(name)
    packer = zstd.ZstdCompressor() if wbits is None else zlib.compressobj(1, zlib.DEFLATED, wbits)
    return b"".join([packer.compress(bytes(MIB)) for _ in range(mib)]) + packer.flush()


@pytest.mark.parametrize("name", ["gzip", "deflate", "raw deflate", "zstd"])
def test_bomb_in_pieces(name: str) -> None:
    """A bomb is taken apart in pieces of bounded size and stopped at the limit, with little memory in use."""
    decode, stream = decoder(ENCODINGS[name][0], 32 * MIB), bomb(name, 33)
    sizes: list[int] = []
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            sizes.extend(map(len, decode.feed(stream)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(sizes) <= PIECE_BYTES
    assert 31 * MIB < sum(sizes) <= 32 * MIB
    assert peak < 2 * MIB


PEAKS = """
import resource, sys
from gateway.intake.decoding import decoder
name, small, large = sys.argv[1], *(open(path, "rb").read() for path in sys.argv[2:])
for stream in (small, large):
    decode = decoder(name, 1 << 40)
    for _ in decode.feed(stream):
        pass
    decode.finish()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.parametrize("name", ["gzip", "deflate", "zstd"])
def test_memory_is_flat(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A body eight times as large takes no more memory of the process, windows and all."""
    folder = tmp_path_factory.mktemp("bombs")
    (folder / "small").write_bytes(bomb(name, 24))
    (folder / "large").write_bytes(bomb(name, 192))
    command = [sys.executable, "-c", PEAKS, name, str(folder / "small"), str(folder / "large")]
    small, large = map(int, subprocess.run(command, capture_output=True, check=True, timeout=120).stdout.split())
    assert large - small < 2048, "KiB"


def test_bomb_in_a_bomb() -> None:
    """A small body whose outer coding hides an endless inner one is stopped by the length of the inner one."""
    nothing = gzip.compress(b"") * 50_000
    with pytest.raises(TooLarge, match="gzip body is over"):
        decoded("gzip, zstd", [zstd.compress(nothing)], max_bytes=10_000)


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_members_are_bounded(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many small members are decoded and no more, and one more for each so many bytes that come out."""
    monkeypatch.setattr(decoding, "MAX_MEMBERS", 100)
    monkeypatch.setattr(decoding, "MEMBER_BYTES", 50)
    encoding, encode = ENCODINGS[name]
    assert decoded(encoding, [encode(b"x") * 102]) == b"x" * 102
    with pytest.raises(BadRequest, match="more than 100 members"):
        decoded(encoding, [encode(b"x") * 103])
    assert len(decoded(encoding, [encode(b"x" * 50) * 1000])) == 50_000


@pytest.mark.parametrize("name", ["gzip", "zstd"])
def test_empty_members_are_bounded(name: str) -> None:
    """A body of nothing but empty members is refused after a thousand, which is before it costs much."""
    encoding, encode = ENCODINGS[name]
    assert decoding.MAX_EMPTY_MEMBERS == 1000
    some = encode(b"") * 500
    assert decoded(encoding, [some + encode(b"x") + some + encode(b"y")]) == b"xy"
    for chunks in ([encode(b"") * 99_000], [encode(b"")] * 1003):
        with pytest.raises(BadRequest, match="more than 1,000 empty members"):
            decoded(encoding, chunks)


def test_many_blocks_are_one_file() -> None:
    """A file of many members of 64 KiB, as bgzip makes it, is decoded whole, however many it has."""
    block = gzip.compress(bytes(64 << 10), 1)
    decode = decoder("gzip", 1 << 40)
    size = 0
    for _ in range(1100):
        size += sum(len(piece) for piece in decode.feed(block * 10))
    assert size == 11_000 * (64 << 10)


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_one_newline_may_follow(name: str, newline: bytes, size: int) -> None:
    """One newline behind the end of a body, as tools for text put there, is no part of it; more than one is garbage."""
    encoding, encode = ENCODINGS[name]
    stream = encode(b"body")
    sent = stream + newline
    assert decoded(encoding, [sent[at : at + size] for at in range(0, len(sent), size)]) == b"body"
    for rest in (newline * 2, b"\n\r", b"\r", newline + b"x", newline + stream, newline + b"\0"):
        sent = stream + rest
        with pytest.raises(BadRequest, match="something follows"):
            decoded(encoding, [sent[at : at + size] for at in range(0, len(sent), size)])


@pytest.mark.parametrize("size", [1, 512, 1 << 20])
def test_gzip_may_be_padded(size: int) -> None:
    """Zeros behind the last member of gzip, as on a tape, are no part of the body; anything among them is garbage."""
    stream = gzip.compress(b"one") + gzip.compress(b"two")
    assert decoded("gzip", [stream + bytes(size)]) == b"onetwo"
    assert decoded("gzip", [stream, bytes(size), bytes(size)]) == b"onetwo"
    for rest in (b"x", b"\n", stream):
        for chunks in ([stream + bytes(size) + rest], [stream, bytes(size), rest]):
            with pytest.raises(BadRequest, match="something follows"):
                decoded("gzip", chunks)


@pytest.mark.parametrize("name", ["deflate", "zstd"])
def test_zeros_are_gzips(name: str) -> None:
    """Behind a body in another coding zeros are garbage."""
    encoding, encode = ENCODINGS[name]
    with pytest.raises(BadRequest, match="something follows"):
        decoded(encoding, [encode(b"body") + bytes(8)])


@every_encoding
def test_received_is_bounded(name: str) -> None:
    """A body longer than max_received_bytes is refused even if it decodes to little; chunks are counted as received."""
    encoding, _ = ENCODINGS[name]
    decode = decoder(encoding, 1000)
    with pytest.raises((TooLarge, BadRequest)):
        list(decode.feed(bytes(decode.max_received_bytes + 1)))
    assert decode.received_bytes == decode.max_received_bytes + 1
    assert decode.decoded_bytes <= 1000 or encoding in ("", "identity")


def test_zstd_window() -> None:
    """A zstd window of 8 MiB is accepted, a larger one refused with the size that is right."""

    def windowed(log: int) -> bytes:
        packer = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: log})
        return b"".join([packer.compress(bytes(MIB)) for _ in range(20)]) + packer.flush()

    assert len(decoded("zstd", [windowed(23)])) == 20 * MIB
    with pytest.raises(BadRequest, match=r"more than 8 MiB.*RFC 9659"):
        decoded("zstd", [windowed(24)])


@pytest.mark.parametrize("encoding", ["br", "gzip, br", "x-zstd", "gzip;q=1", "caf\u00e9\udc80", "z" * 10_000])
def test_unknown(encoding: str) -> None:
    """An unknown coding is refused in printable ASCII that says what would be right."""
    with pytest.raises(UnsupportedEncoding, match="use gzip, deflate, zstd or none") as caught:
        decoder(encoding, 100)
    assert str(caught.value).isascii()
    assert len(str(caught.value)) < 200


def test_too_many_codings() -> None:
    """Three codings over each other are refused."""
    with pytest.raises(UnsupportedEncoding, match="3 codings; at most 2"):
        decoder("gzip, gzip, gzip", 100)


def test_identity_is_not_copied() -> None:
    """A body without a coding passes through as the chunks it came in, large ones divided."""
    chunk = b"x" * 1000
    assert next(decoder("", MIB).feed(chunk)) is chunk
    assert [len(piece) for piece in decoder("", MIB).feed(bytes(600_000))] == [262144, 262144, 75712]
