"""The fast lane: a complete, plain, small report is answered without waking a task.

It decides nothing by itself: capacity, validity and commit are those of the ordinary way, and at the first doubt the bytes,
with all that follow on the connection, go that way instead. Both give the same response and the same spooled bytes.
"""
