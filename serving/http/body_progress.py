"""How much of a request's body has arrived, and whether it arrives fast enough."""

from __future__ import annotations

from dataclasses import dataclass

from serving.http.head import MAX_HEAD_BYTES

# Chunk sizes and trailers may have MAX_HEAD_BYTES, and so much for each byte of the body: chunks of one byte
# need it.
CHUNK_OVERHEAD_BYTES = 8
# The slowest body that is accepted.
MIN_BODY_BYTES_PER_S = 1024


@dataclass(slots=True)
class BodyProgress:
    """The bytes that have arrived: of the body, and of chunk sizes and trailers. Times are monotonic."""

    body_bytes: int = 0
    framing_bytes: int = 0
    # The body's bytes when its progress was last checked, and when that was.
    checked_bytes: int = 0
    checked_s: float = 0.0

    def begin(self, now: float) -> None:
        """Nothing of the next body has arrived."""
        self.body_bytes = self.framing_bytes = 0
        self.excuse(now)

    def excuse(self, now: float) -> None:
        """Leave the time until `now` out of what the client is judged by."""
        self.checked_bytes, self.checked_s = self.body_bytes, now

    def is_too_slow(self, now: float, timeout_s: float) -> bool:
        """Whether less than MIN_BODY_BYTES_PER_S has arrived in the last `timeout_s` seconds or more. Then
        the next such time begins."""
        if now - self.checked_s <= timeout_s:
            return False
        slow = self.body_bytes - self.checked_bytes < MIN_BODY_BYTES_PER_S * timeout_s
        self.excuse(now)
        return slow

    @property
    def has_too_much_framing(self) -> bool:
        """Whether chunk sizes and trailers are larger than any body needs."""
        return self.framing_bytes > MAX_HEAD_BYTES + CHUNK_OVERHEAD_BYTES * self.body_bytes
