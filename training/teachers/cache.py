"""The cache of views on disk: the teacher's logits, one file a view.

DIRECTORY/KEY/view-00.safetensors holds float16 [K, N, C] of the teacher's K exits for the N training
images as view 0 shows them; `key.json` beside it holds what the key is a digest of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from offramp.files import replacing, write_whole
from training.run_lock import LOCK, waiting_lock
from training.teachers.key import digest

KEY_FILE = "key.json"
KEY_LETTERS = 16


@dataclass(frozen=True)
class ViewCache:
    """The views of one key below `root`; `content` is what the key is a digest of."""

    root: Path
    content: dict[str, Any]

    @cached_property
    def key(self) -> str:
        """The SHA-256 of `content`, in hexadecimal."""
        return digest(self.content)

    @property
    def directory(self) -> Path:
        """Where the views of this key lie."""
        return self.root / self.key[:KEY_LETTERS]

    @property
    def started(self) -> bool:
        """Whether a view of this key was stored."""
        return (self.directory / KEY_FILE).is_file()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Exits, training images and classes: the shape of a view's logits."""
        return self.content["exits"], self.content["data"]["images"][0], self.content["classes"]

    @property
    def view_bytes(self) -> int:
        """The size of one view's logits."""
        exits, samples, classes = self.shape
        return exits * samples * classes * torch.float16.itemsize

    def path(self, view: int) -> Path:
        """The file of `view` (0-based)."""
        return self.directory / f"view-{view:02d}.safetensors"

    @contextmanager
    def locked(self, view: int) -> Iterator[None]:
        """Hold the lock of `view`; another process that fills it is waited for."""
        with waiting_lock(self.path(view).with_suffix(".lock")):
            yield

    def read(self, view: int, say: Callable[[str], None]) -> Tensor | None:
        """The logits of `view` on the CPU, or None if they must be computed.

        A file that is damaged or does not fit is reported in one sentence.
        """
        path = self.path(view)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata, logits = file.metadata() or {}, file.get_tensor("logits")
        except (OSError, SafetensorError):
            logits, metadata = torch.empty(0), {}
        expected = (self.shape, torch.float16, self._metadata(view, logits))
        if (tuple(logits.shape), logits.dtype, metadata) != expected:
            say(f"{path} is damaged or of other training images: the view is computed again.")
            return None
        return logits

    def write(self, view: int, logits: Tensor) -> None:
        """Store the logits of `view`, float16 [K, N, C], in one step. Raises WriteError."""
        with waiting_lock(self.directory / LOCK):
            if not (self.directory / KEY_FILE).is_file():
                text = json.dumps(self.content, indent=2) + "\n"
                write_whole(self.directory / KEY_FILE, text.encode("utf-8"))
        logits = logits.cpu().contiguous()
        with replacing(self.path(view)) as part:
            try:
                save_file({"logits": logits}, part, self._metadata(view, logits))
            except SafetensorError as error:  # a full disk, too
                raise OSError(str(error)) from error

    def _metadata(self, view: int, logits: Tensor) -> dict[str, str]:
        checksum = hashlib.sha256(logits.contiguous().numpy().tobytes()).hexdigest()
        return {"key": self.key, "view": str(view), "sha256": checksum}
