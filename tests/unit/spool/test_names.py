"""Names in the spool hold whatever a client may send, and no client's text can be more in them than a label."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from gateway.core.text import decode, encode
from gateway.spool import names
from gateway.spool.names import KeyNumber
from testkit.texts import hours, instants, long_texts, texts, uniques

pids = st.integers(1, 1 << 22)
kinds = st.sampled_from([names.OPEN_SEGMENT, names.CUT_SEGMENT, names.WHOLE_REPORT, names.BODY, names.SIDECAR])


@pytest.mark.parametrize(
    "name", ["1700000000000000000.07.jsonl", "170000000000000000\u0660.7.jsonl", "1700000000000000000..jsonl"]
)
def test_a_number_is_written_in_one_way(name: str) -> None:
    """A name whose parts would give another name is none of ours: it would be looked for where it is not."""
    assert names.parse_spool_name(name) is None


@given(instants, instants, pids, kinds, long_texts)
def test_spool_names_are_read_back(order: int, received: int, pid: int, kind: str, text: str) -> None:
    """A spooled file's name fits a directory with the longest suffix beside it, and all its parts are found again."""
    name = names.spool_name(order, received, pid, kind, text)
    assert len(name.encode()) + len(f".{names.UPLOAD_NOTE}") <= names.MAX_NAME_BYTES
    parsed = names.parse_spool_name(name)
    assert parsed is not None
    assert (parsed.order, parsed.received_ns, parsed.pid, parsed.kind) == (order, received, pid, kind)
    assert str(parsed) == name
    if len(encode(text)) < 100:
        assert decode(parsed.label) == text


@given(instants, instants, texts, texts)
def test_spool_names_sort_by_age(one: int, other: int, label: str, other_label: str) -> None:
    """Whatever clients sent, the older file has the lesser name."""
    assume(one < other)
    assert names.spool_name(one, other, 7, "json", label) < names.spool_name(other, one, 7, "json", other_label)


@pytest.mark.parametrize("label", ["", ".alice", ".1795269540000000009"])
def test_names_of_format_1_are_read(label: str) -> None:
    """A name that an earlier version gave says by its order when the file was received."""
    parsed = names.parse_spool_name(f"1795269540000000007.7{label}.json")
    assert parsed is not None
    assert (parsed.order, parsed.received_ns, parsed.pid, parsed.label) == (
        1795269540000000007,
        1795269540000000007,
        7,
        label[1:],
    )
    assert str(parsed) == f"1795269540000000007.7{label}.json"


@given(texts)
@example("1795269540000000007.7.a.json.open")
@example("1795269540000000007.7.a.json\n")
@example("1795269540000000007.7.json.upload")
def test_other_names_are_not_taken_for_ours(text: str) -> None:
    """What is not a name of ours to the last byte is none."""
    for name in (text, f"{text}.json", f"1795269540000000007.7.{text}", f" 1795269540000000007.7.{text}.json"):
        parsed = names.parse_spool_name(name)
        assert parsed is None or str(parsed) == name


@given(hours, long_texts, uniques, st.integers(0, 10**9))
def test_batch_names_are_read_back(hour: str, host: str, unique: bytes, number: int) -> None:
    """A batch is known by its directory and by its sealed file, whatever the machine is called."""
    batch = names.new_batch(hour, host, unique)
    assert names.parse_batch(str(batch)) == batch
    assert names.parse_sealed(batch.sealed(KeyNumber(number))) == (batch, number)
    assert len(f"{batch.sealed(KeyNumber(number))}.{names.UPLOAD_NOTE}") <= names.MAX_NAME_BYTES
    assert names.identity_of(batch.sealed(KeyNumber(number))) == str(batch)


def test_a_machine_without_a_name_is_unknown() -> None:
    """A batch of a machine that has no name can be read back too."""
    batch = names.new_batch("2026112113", "", bytes(16))
    assert batch.host == "unknown"
    assert names.parse_batch(str(batch)) == batch
