"""Batching: from waiting reports to a sealed archive.

    waiting ──claim──▶ aggregation/<batch>/ ──aggregate──▶ tmp/ ──seal──▶ uploading/ ──▶ sources removed

A batch holds reports of one UTC hour. It is cut when the interval of its stream is over, or as soon as there is enough for
one. Each step is synced before the next begins, and each can be repeated after a crash.
"""
