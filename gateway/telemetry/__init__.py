"""Log and metrics.

One event is one line of the log; a failure that repeats is logged when it begins, as a count while it lasts, and when it
ends. Metrics are counted by each process in memory that all of them share, and exposed as sums.
"""
