"""The spool: received data on disk, its states, and the steps from one to the next.

    cache_dir/
        .lock   .owner   FORMAT   NUMBERS   BALLAST   tmp/   quarantine/
        <report stream>/
            <name>.jsonl.open                 written by a journal
            <name>.jsonl                      a cut segment
            <name>.<user>.json                a whole large report
            aggregation/<batch>/              claimed
            uploading/<batch>.<n>.jsonl.gz    sealed
            uploading/<batch>.<n>.jsonl       sealed where the disk had no room for an archive; compressed while it is sent
        <file stream>/
            <name>.<uri>.meta                 the sidecar, in place first
            <name>.<uri>.body                 the file; its rename is the commit

`<name>` is `<order>.<received>.<pid>`: a number by which names sort and never collide, and the time by the clock, which may have
been stepped back.

    receive ──commit──▶ waiting ──claim──▶ aggregation ──seal──▶ uploading ──deliver, retire──▶ (gone)
                                                                     ▲
                        waiting, claimed ──seal unpacked──▶ uploading      where there is no room for an archive

    receive ──commit──▶ waiting body + sidecar ───────deliver, retire┴────────────────────────▶ (gone)

    anything that cannot be read ──quarantine──▶ quarantine/

The state of a thing is its name alone, so a crash on any line leaves a state that `recovery` knows.
"""
