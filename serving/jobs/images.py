"""The images of a job on disk: one file of contents, and one with a line for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import orjson

from offramp.grouping import group
from serving.errors import InvalidRequestError, TooLargeError

CONTENTS = "images"
INDEX = "images.jsonl"
MAX_NAME_CHARS = 1024
# Images of a group, which are submitted as one request. A group ends earlier at so many bytes.
GROUP_IMAGES = 32
GROUP_BYTES = 8 << 20


@dataclass(frozen=True)
class StoredImage:
    """An image called `name` that has `size` bytes from `offset` of the contents. One that is larger than
    allowed is not stored: `size` is 0."""

    name: str
    offset: int
    size: int
    too_large: bool = False


class ImageWriter:
    """Stores images one after the other, within limits."""

    def __init__(
        self,
        directory: Path,
        *,
        max_images: int,
        max_image_bytes: int,
        max_bytes: int,
        claim: Callable[[int], None],
    ) -> None:
        """An image of more than `max_image_bytes` is left out; `max_images`, and `max_bytes` of all images,
        left-out ones included, are never exceeded. `claim` is called before so many bytes are written."""
        self._directory = directory
        self._max_images = max_images
        self._max_image_bytes = max_image_bytes
        self._max_bytes = max_bytes
        self._claim = claim
        self._contents: IO[bytes] = (directory / CONTENTS).open("wb")
        self._images: list[StoredImage] = []
        self._name = ""
        self._offset = self._size = self._total = 0

    def begin(self, name: str) -> None:
        """Begin an image; raises InvalidRequestError if there are as many as allowed."""
        if len(self._images) == self._max_images:
            raise InvalidRequestError(f"A job may have at most {self._max_images} images.")
        # Orjson takes no lone surrogates.
        self._name = name.encode("utf-8", "backslashreplace").decode()[:MAX_NAME_CHARS]
        self._size = 0

    def write(self, content: bytes) -> None:
        """Add to the image that has begun; raises TooLargeError if the sum is larger than allowed."""
        self._size += len(content)
        self._total += len(content)
        if self._total > self._max_bytes:
            raise TooLargeError(f"The images have more than the {self._max_bytes} bytes allowed.")
        if self._size <= self._max_image_bytes:
            self._claim(len(content))
            self._contents.write(content)

    def end(self) -> None:
        """End the image."""
        too_large = self._size > self._max_image_bytes
        if too_large:
            self._contents.seek(self._offset)
            self._contents.truncate()
        size = 0 if too_large else self._size
        self._images.append(StoredImage(self._name, self._offset, size, too_large))
        self._offset += size

    @property
    def count(self) -> int:
        """The number of images so far."""
        return len(self._images)

    def close(self) -> None:
        """Write the index."""
        self._contents.close()
        lines = (orjson.dumps(one, option=orjson.OPT_APPEND_NEWLINE) for one in self._images)
        (self._directory / INDEX).write_bytes(b"".join(lines))


def stored_images(directory: Path) -> list[StoredImage]:
    """The images of a job, in order; raises OSError."""
    with (directory / INDEX).open("rb") as file:
        return [StoredImage(**orjson.loads(line)) for line in file]


def read_images(directory: Path, images: Sequence[StoredImage]) -> list[bytes]:
    """The contents of `images`, empty for one that is too large; raises OSError."""
    found = []
    with (directory / CONTENTS).open("rb") as file:
        for image in images:
            file.seek(image.offset)
            found.append(file.read(image.size))
    return found


def group_images(images: Sequence[StoredImage]) -> Iterator[list[StoredImage]]:
    """`images` in groups of GROUP_IMAGES, or as many as have GROUP_BYTES; at least one."""
    return group(images, lambda image: image.size, GROUP_IMAGES, GROUP_BYTES)
