"""Runs the program from its sources: `python -m gateway`."""

from gateway.cli.main import main

main()
