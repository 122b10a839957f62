"""What a body holds: its Content-Encoding undone, and taken out of the form that wraps it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain

from gateway.core.streams import Stream
from gateway.intake.decoding import decoder
from gateway.intake.forms import WRAPPING_BYTES, Claims, MultipartForm, boundary_of

# Parts of a body as they were sent. A view is good until the step that takes it is over.
Chunks = Sequence[bytes | memoryview]


class Content:
    """The content of one body.

    Args:
        stream: that it is for.
        content_type: of the body, as its head claims.
        encoding: its Content-Encoding; empty for none.

    Raises:
        BadRequest: the form has no boundary.
        UnsupportedEncoding: see `decoder`.

    Attributes:
        max_body_bytes: of the body, decoded: the limit of the stream is of what is kept, and a form wraps that.
        memory_bytes: what the windows of its codings may take.
        is_form: whether a form wraps it, and may say what it is.
        is_plain: whether it is the body as it is sent.
    """

    def __init__(self, stream: Stream, content_type: str = "", encoding: str = "") -> None:
        boundary = boundary_of(content_type)
        self.max_body_bytes = stream.max_body_bytes + (0 if boundary is None else WRAPPING_BYTES)
        self._claimed_type = content_type
        self._form = (
            None if boundary is None else MultipartForm(boundary, stream.max_body_bytes, has_fields=stream.form.has_sidecar)
        )
        self.is_form = self._form is not None
        self.is_plain = not encoding and self._form is None
        self._decoder = None if self.is_plain else decoder(encoding, self.max_body_bytes)
        self.memory_bytes = 0 if self._decoder is None else self._decoder.memory_bytes

    @property
    def type(self) -> str:
        """The media type of the content, as claimed; of what a form holds it is known once some of that has come."""
        return self._claimed_type if self._form is None else self._form.content_type

    def feed(self, chunks: Chunks) -> Iterable[bytes | memoryview]:
        """Take the next bytes of the body, and give those of the content; all of them have to be taken.

        Raises:
            BadRequest, TooLarge: see `Decoder.feed` and `MultipartForm.unwrap`.
        """
        if self._decoder is None:
            return chunks
        pieces = chain.from_iterable(map(self._decoder.feed, chunks))
        return pieces if self._form is None else self._form.unwrap(pieces)

    def finish(self) -> None:
        """Take the end of the body; BadRequest if something is missing."""
        if self._decoder is not None:
            self._decoder.finish()
        if self._form is not None:
            self._form.finish()

    def claims(self, uri: str) -> Claims:
        """What is said of a file, after `finish`; see `MultipartForm.claims`."""
        return Claims(uri, self._claimed_type) if self._form is None else self._form.claims(uri)
