"""Which requests the canary answers: a random share, or the requests of a share of a header's values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from random import random

from starlette.types import Scope

HASH_BYTES = 8
HASHES = 1 << (8 * HASH_BYTES)


@dataclass(frozen=True)
class Assignment:
    """The `share` of requests that goes to the canary, in [0, 1].

    With `header`, a name in lower case, requests with the same value of it go to the same version, and a
    larger share only moves values to the canary. `salt` makes other canaries choose other values. A request
    without the header is assigned at random.
    """

    share: float
    header: bytes | None = None
    salt: bytes = b""

    def takes(self, scope: Scope, uniform: Callable[[], float] = random) -> bool:
        """Whether the canary answers the request of `scope`; `uniform` draws from [0, 1)."""
        if self.header is not None:
            for name, value in scope["headers"]:
                if name == self.header:
                    return position(self.salt, value) < self.share
        return uniform() < self.share


def position(salt: bytes, value: bytes) -> float:
    """Where `value` lies in [0, 1]: evenly distributed over values, and the same for a value at any share."""
    digest = blake2b(value, digest_size=HASH_BYTES, person=blake2b(salt, digest_size=16).digest())
    return int.from_bytes(digest.digest(), "big") / HASHES
