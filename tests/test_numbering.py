"""What is remembered of numbers is bounded; how they are used is told by the tests of the delivery."""

from __future__ import annotations

from pathlib import Path

from fixtures_spool import USAGE

from gateway import numbering
from gateway.numbering import Numbering
from gateway.stores.local import LocalStore


def test_new_batches_are_bounded(tmp_path: Path) -> None:
    """While a store is away for long, what is sealed meanwhile takes no memory of its own; the newest are known."""
    made = Numbering(LocalStore(tmp_path), USAGE)
    for number in range(5 * numbering.KEPT_NEW):
        made.is_new(f"batch {number}")
    assert len(made._new) == numbering.KEPT_NEW
    assert f"batch {5 * numbering.KEPT_NEW - 1}" in made._new
