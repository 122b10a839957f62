"""What ends a release."""

from __future__ import annotations


class ReleaseError(Exception):
    """The release cannot be made; each line of the text is one fault, and says what to do."""
