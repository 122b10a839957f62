"""The command line: `serve` (the default), `check-config`, `healthcheck`, `version`.

Exit codes: 0 drained; 2 bad usage or configuration; 3 stopped with data left in the spool; 1 anything else.

`main` sets up what a process inherits and imports as little as it can, because containers call `healthcheck` every few
seconds; everything heavier is imported by the subcommand that needs it.
"""
