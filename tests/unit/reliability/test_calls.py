from __future__ import annotations

from reliability.calls import Call, Namer, Step, ordinal, shown

BATCH = "2026112114.host.0123456789abcdef0123456789abcdef"
INSTANT = "1795283700810035065.8609"


class Run:
    """Calls one after the other, named."""

    def __init__(self) -> None:
        self._namer = Namer()
        self._namer.step(Call(1, "listen"))

    def on(self, thread: int, name: str, *paths: str, makes: bool = False) -> str:
        """A call about files: its transition and its name."""
        return self._named(Call(thread, name, paths, makes=makes))

    def sent(self, peer: str, data: bytes) -> str:
        """A call on a socket."""
        return self._named(Call(1, "write", peer=peer, connection=peer, data=data))

    def _named(self, call: Call) -> str:
        step = self._namer.step(call)
        return "" if step is None else f"{step.transition}: {step}"


def test_names_are_shown_without_what_differs_between_runs() -> None:
    """Instants, users, hosts and numbers are left out; the kind of the file, and what it is, stay."""
    assert shown(f"usage/{INSTANT}.jsonl.open") == "usage/….jsonl.open"
    assert shown(f"usage/{INSTANT}.al%2Eice.json") == "usage/….json"
    assert shown(f"usage/aggregation/{BATCH}/{INSTANT}.jsonl") == "usage/aggregation/…/….jsonl"
    assert shown(f"usage/uploading/{BATCH}.12.jsonl.gz") == "usage/uploading/….jsonl.gz"
    assert shown(f"specimen/{INSTANT}.file%3A%2F%2F%2Fa%2Ebin.body.upload") == "specimen/….body.upload"
    assert (shown("."), shown("FORMAT"), shown(f"tmp/{INSTANT}")) == (".", "FORMAT", "tmp/…")


def test_calls_of_one_kind_are_counted() -> None:
    """The same name is counted over all threads, from one."""
    run = Run()
    first = run.on(1, "fdatasync", f"usage/{INSTANT}.jsonl.open")
    second = run.on(2, "fdatasync", f"usage/{INSTANT}.jsonl.open")
    assert first == "commit: fdatasync usage/….jsonl.open, 1st"
    assert second == "commit: fdatasync usage/….jsonl.open, 2nd"
    assert str(Step("cut", "rename a -> b", 11)) == "rename a -> b, 11th"
    assert [ordinal(number) for number in (3, 12, 21, 113)] == ["3rd", "12th", "21st", "113th"]


def test_a_report_is_received_committed_and_cut() -> None:
    """The sync of the directory belongs to what its thread has changed before."""
    run = Run()
    assert run.on(1, "openat", f"usage/{INSTANT}.jsonl.open", makes=True) == "receive: create usage/….jsonl.open, 1st"
    assert run.on(1, "fsync", "usage") == "receive: fsync usage (receive), 1st"
    assert run.on(1, "writev", f"usage/{INSTANT}.jsonl.open") == "receive: write usage/….jsonl.open, 1st"
    assert run.sent("client", b"HTTP/1.1 204 No Content\r\n") == "commit: answer 204, 1st"
    named = run.on(1, "rename", f"usage/{INSTANT}.jsonl.open", f"usage/{INSTANT}.jsonl")
    assert named == "cut: rename usage/….jsonl.open -> usage/….jsonl, 1st"
    assert run.on(1, "openat", "usage") == ""
    assert run.on(1, "fsync", "usage") == "cut: fsync usage (cut), 1st"


def test_what_is_in_tmp_is_told_by_what_came_before() -> None:
    """A sidecar follows the sync of its body, an archive the look at its sources; anything else is a draft."""
    run = Run()
    assert run.on(1, "openat", "tmp/1", makes=True) == "receive: create tmp/draft, 1st"
    assert run.on(1, "fdatasync", "tmp/1") == "receive: fdatasync tmp/draft, 1st"
    assert run.on(1, "openat", "tmp/2", makes=True) == "receive: create tmp/sidecar, 1st"
    named = run.on(1, "rename", "tmp/2", f"specimen/{INSTANT}.uri.meta")
    assert named == "commit: rename tmp/sidecar -> specimen/….meta, 1st"
    assert run.on(1, "fsync", "specimen") == "commit: fsync specimen (commit), 1st"
    assert run.on(2, "openat", f"usage/aggregation/{BATCH}") == ""
    assert run.on(2, "openat", "tmp/3", makes=True) == "aggregate: create tmp/archive, 1st"
    named = run.on(2, "rename", "tmp/3", f"usage/uploading/{BATCH}.1.jsonl.gz")
    assert named == "seal: rename tmp/archive -> usage/uploading/….jsonl.gz, 1st"
    assert run.on(2, "fsync", "usage/uploading") == "seal: fsync usage/uploading (seal), 1st"


def test_a_batch_is_claimed_and_its_sources_removed() -> None:
    """From the directory of a batch to its removal."""
    run = Run()
    batch = f"usage/aggregation/{BATCH}"
    assert run.on(1, "mkdir", batch) == "claim: make usage/aggregation/…, 1st"
    assert run.on(1, "fsync", "usage/aggregation").startswith("claim: ")
    assert run.on(1, "rename", f"usage/{INSTANT}.jsonl", f"{batch}/{INSTANT}.jsonl").startswith("claim: ")
    assert run.on(1, "fsync", batch).startswith("claim: ")
    assert run.on(2, "fsync", "usage/uploading").startswith("remove sources: ")
    assert run.on(2, "unlink", f"{batch}/{INSTANT}.jsonl").startswith("remove sources: ")
    assert run.on(2, "fsync", batch).startswith("remove sources: ")
    assert run.on(2, "rmdir", batch) == "remove sources: remove usage/aggregation/…, 1st"


def test_a_file_is_sealed_as_it_is() -> None:
    """Whether it waited or was claimed, its move to where it is sent from is a seal, and so are the syncs that follow."""
    run = Run()
    sealed = f"usage/uploading/{BATCH}.1.jsonl"
    named = run.on(1, "rename", f"usage/{INSTANT}.jsonl", sealed)
    assert named == "seal unpacked: rename usage/….jsonl -> usage/uploading/….jsonl, 1st"
    assert run.on(1, "fsync", "usage/uploading").startswith("seal unpacked: ")
    assert run.on(1, "fsync", "usage").startswith("seal unpacked: ")
    batch = f"usage/aggregation/{BATCH}"
    named = run.on(1, "rename", f"{batch}/{INSTANT}.alice.json", sealed)
    assert named == "seal unpacked: rename usage/aggregation/…/….json -> usage/uploading/….jsonl, 1st"
    assert run.on(1, "fsync", batch).startswith("seal unpacked: ")
    assert run.on(1, "rename", sealed, f"usage/uploading/{BATCH}.2.jsonl").startswith("deliver: ")


def test_an_upload_that_is_only_tried_is_told_apart() -> None:
    """The steps of an upload of the proof have names of their own."""
    run = Run()
    assert run.sent("store", b"POST /specimen-1f/.a-proof?uploads HTTP/1.1\r\n").endswith("begin of upload of proof, 1st")
    named = run.sent("store", b"PUT /specimen-1f/.a-proof?partNumber=1&uploadId=x HTTP/1.1\r\n")
    assert named == "deliver: PUT specimen part 1 of proof, 1st"
    named = run.sent("store", b"DELETE /specimen-1f/.a-proof?uploadId=x HTTP/1.1\r\n")
    assert named == "deliver: DELETE specimen upload of proof, 1st"


def test_a_file_is_delivered_and_retired() -> None:
    """Requests are named without bucket and key, what follows them as their body, and notes belong to the delivery."""
    run = Run()
    note = f"specimen/{INSTANT}.uri.body.upload"
    assert run.sent("store", b"PUT /specimen-1f/.a-proof HTTP/1.1\r\n") == "deliver: PUT specimen proof, 1st"
    assert run.sent("store", b"POST /specimen-1f/a?uploads HTTP/1.1\r\n") == "deliver: POST specimen begin of upload, 1st"
    assert run.on(2, "openat", note, makes=True) == "deliver: create specimen/….body.upload, 1st"
    named = run.sent("store", b"PUT /specimen-1f/a?partNumber=2&uploadId=x HTTP/1.1\r\n")
    assert named == "deliver: PUT specimen part 2, 1st"
    assert run.sent("store", b"bytes") == "deliver: body of PUT specimen part 2, 1st"
    assert run.sent("store", b"POST /specimen-1f/a?uploadId=x HTTP/1.1\r\n") == "deliver: POST specimen upload, 1st"
    assert run.on(2, "unlink", note).startswith("deliver: ")
    assert run.on(2, "fsync", "specimen").startswith("deliver: ")
    named = run.on(2, "rename", f"usage/uploading/{BATCH}.1.jsonl.gz", f"usage/uploading/{BATCH}.2.jsonl.gz")
    assert named.startswith("deliver: ")
    assert run.on(2, "unlink", f"specimen/{INSTANT}.uri.body") == "retire: remove specimen/….body, 1st"
    assert run.on(2, "fsync", "specimen").startswith("retire: ")


def test_before_it_listens_all_is_the_start() -> None:
    """What recovery does belongs to no transition of its own."""
    step = Namer().step(Call(1, "unlink", ("tmp/1",)))
    assert step == Step("start", "remove tmp/1", 1)
