"""The receiver in several processes.

The first process delivers and supervises; each worker process listens on a socket of its own and commits into the same spool
under its own pid. They share the lock of the spool, a block of counters (`core.shared_counters`), and for each worker a
channel of messages (`protocol`). A worker whose channel ends exits at once. When a worker dies, the supervisor recovers its
open segments, recounts what waits, and starts another at the same sockets.
"""
