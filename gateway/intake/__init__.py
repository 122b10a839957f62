"""Intake: from an admitted request to a commit.

    small report      body ─▶ lines ─▶ the journal of its stream ─▶ synced ─▶ 204
    anything else     body ─▶ content ─▶ (lines) ─▶ a staged file under tmp/ ─▶ synced, renamed ─▶ 204

`receive` decides which way; `pipeline` has one piece of a body written while the next one comes; `body` reads them within the
client's time; `content` undoes the coding and the form; `staging` makes lines and files of them. A body is committed as a whole
or not at all; after a crash whole lines of a body without a response may remain. Its memory does not grow with its size. A
request that is answered with an error leaves nothing behind.
"""
