from __future__ import annotations

import gzip
from pathlib import Path

from testkit.buckets import Buckets
from testkit.deadlines import until
from testkit.gateway_process import Gateway, MakeGateway, settings_for
from testkit.ledger import Fate, Ledger
from testkit.stored import files

# 2026-11-21T10:00:00Z
GO_NS = 1_795_255_200_000_000_000
KILLS = 4


def plant(cache: Path, left: dict[str, bytes]) -> None:
    """Put files where the Go edition leaves them."""
    for name, content in left.items():
        path = cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def quarantined(gateway: Gateway) -> list[bytes]:
    """The content of everything that was set aside."""
    return sorted(path.read_bytes() for path in (gateway.cache / "quarantine").rglob("*") if path.is_file())


def test_its_spool_is_delivered_or_quarantined(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """What the Go edition left is delivered once, and what cannot be is in the quarantine and in the log: nothing is erased."""
    gateway = make_gateway(settings_for(buckets))
    archive = gzip.compress(b'{"flat":"in aggregation"}\n{"only":"in the archive"}\n')
    plant(
        gateway.cache,
        {
            f"usage/{GO_NS + 1}.17.alice": b'{"flat":"waiting"}',
            f"usage/{GO_NS + 2}.17.bob.of.accounts": b'{\n "pretty": true\n}\n',
            f"usage/{GO_NS + 3}.17.carol": b'{"torn":',
            f"usage/aggregation/{GO_NS + 4}.17.alice": b'{"flat":"in aggregation"}',
            f"usage/uploading/aggregate_{GO_NS + 5}.gz": archive,
            f"usage/aggregation/aggregate_{GO_NS + 6}.gz": b"not finished",
            f"error/{GO_NS + 7}.17.alice": b'{"error":1}',
            "error/README": b"put there by a person",
            "specimen/20261121100000.25.17.https%3A%2F%2Fexample.com%2Fcat.png": b"a cat",
            "specimen/uploading/20261121100001.17.dog.bin": b"a dog",
            "specimen/odd": b"odd",
        },
    )
    gateway.start()
    until(lambda: not [name for name in gateway.left() if not name.startswith("quarantine/")], "everything to be delivered")
    assert sorted(buckets.lines(buckets.usage)) == [
        b'{  "pretty": true }',
        b'{"flat":"in aggregation"}',
        b'{"flat":"waiting"}',
        b'{"only":"in the archive"}',
    ]
    assert buckets.lines(buckets.error) == [b'{"error":1}']
    cat, dog = sorted(files(buckets, buckets.specimen), key=lambda one: one.body)
    assert (cat.body, cat.metadata["uri"], cat.key.rpartition(".")[2]) == (b"a cat", "https://example.com/cat.png", "png")
    assert (dog.body, dog.metadata["uri"]) == (b"a dog", "dog.bin")
    assert {b'{"torn":', b"not finished", b"put there by a person", b"odd"} <= set(quarantined(gateway))
    # The archive may go, or be set aside, since all that it held was delivered; nothing else may be there.
    assert len(quarantined(gateway)) == len(gateway.events("quarantined")) <= 5
    assert len(gateway.events("spool adopted")) == 1
    assert gateway.stop() == 0


def test_kills_during_the_adoption(buckets: Buckets, make_gateway: MakeGateway) -> None:
    """Killed again and again in the middle of the adoption, it still delivers everything that the Go edition left once."""
    gateway = make_gateway(settings_for(buckets))
    ledger = Ledger()
    reports = [b'{"n":%d}' % number for number in range(600)]
    specimens = [b"specimen %d" % number for number in range(100)]
    folders = ("usage", "usage/aggregation")
    plant(gateway.cache, {f"{folders[n % 2]}/{GO_NS + n}.17.alice": one for n, one in enumerate(reports)})
    plant(gateway.cache, {f"specimen/20261121100000.{n + 1}1.17.x.bin": one for n, one in enumerate(specimens)})
    plant(gateway.cache, {f"usage/uploading/aggregate_{GO_NS}.gz": gzip.compress(b"\n".join(reports[1:200:2]) + b"\n")})
    for report in reports:
        ledger.note("usage", [report], Fate.ACKNOWLEDGED)
    for specimen in specimens:
        ledger.note("specimen", [specimen], Fate.ACKNOWLEDGED)
    for kill in range(KILLS):
        gateway.launch()
        enough = kill * 150
        until(lambda enough=enough: begun(gateway, enough) or gateway.events("listening"), "the adoption")  # type: ignore[misc]
        gateway.kill()
    gateway.start()
    until(lambda: not [name for name in gateway.left() if not name.startswith("quarantine/")], "everything to be delivered")
    assert gateway.stop() == 0
    ledger.check(buckets)


def begun(gateway: Gateway, enough: int) -> bool:
    """Whether the adoption is under way and has moved so many reports to the new layout."""
    usage = gateway.cache / "usage"
    return (gateway.cache / "adopting").exists() and (usage.exists() and len(list(usage.glob("*.json"))) >= enough)
