"""`offramp preprocess` without its command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from exports.bundle.errors import PreprocessingError
from exports.bundle.manifest import Manifest
from exports.bundle.preprocessing.compare import Comparison, compare
from exports.bundle.preprocessing.inputs import StageInput, stage_input, stage_inputs
from exports.bundle.preprocessing.variants import variants
from exports.bundle.reader import read_manifest
from exports.bundle.resolve import GROCERIES, resolve_bundle
from exports.bundle.untrusted.safe_zip import ARRAY_DAMAGE
from exports.options import Layout
from offramp.errors import ImageError
from offramp.files import write_whole
from offramp.images import ImageSpec, Pixels, decode, decode_whole

# The user's own files are trusted more than those of a request.
MAX_PIXELS = 500_000_000
# Of a tensor: float64 of the largest input.
MAX_ARRAY_BYTES = 1 << 30


@dataclass(frozen=True)
class Photograph:
    """A photograph, and what the stages of a bundle see of it; `image` is the bundle's input."""

    content: bytes
    manifest: Manifest
    image: Pixels
    stages: tuple[StageInput, ...]

    @classmethod
    def open(cls, file: Path, bundle: str | None) -> Self:
        """Read `file` and the manifest of `bundle`, by default the embedded one of groceries.

        Raises ImageError, which names the file, BundleError, and PreprocessingError if the bundle does not
        say how a stage prepares its image.
        """
        manifest = read_manifest(GROCERIES if bundle is None else resolve_bundle(bundle))
        spec = manifest.input
        try:
            content = file.read_bytes()
            image = decode(content, ImageSpec(spec.height, spec.width, spec.resize), MAX_PIXELS)
        except OSError as error:
            raise ImageError(f"{file} cannot be read: {error.strerror}.") from error
        except ImageError as error:
            raise ImageError(f"{file} cannot be read as an image: {error}") from error
        return cls(content, manifest, image, stage_inputs(manifest))

    def write(self, target: Path, stage: int | None) -> list[tuple[list[StageInput], Path]]:
        """Write the pixels of `stage`, or of every stage that takes the image, as PNG.

        Where stages see different pixels there is a file for each, with the stage's number in its name.
        Returns the stages of each file. Raises WriteError, and PreprocessingError if `stage` takes no image.
        """
        shown = self.stages if stage is None else (stage_input(self.manifest, stage),)
        files: dict[bytes, list[StageInput]] = {}
        for one in shown:
            files.setdefault(one.png(self.image), []).append(one)
        written = []
        for content, stages in files.items():
            file = target
            if len(files) > 1:
                file = target.with_name(f"{target.stem}-stage{stages[0].stage}{target.suffix}")
            write_whole(file, content)
            written.append((stages, file))
        return written

    def stage_for(self, array: NDArray[Any], stage: int | None) -> StageInput:
        """The stage to compare `array` with: `stage`, else the only one whose size it has.

        Raises PreprocessingError if several or none have that, and if the stage takes no image.
        """
        if stage is not None:
            return stage_input(self.manifest, stage)
        fitting = [one for one in self.stages if _fits(array, one.taken(self.image).shape[:2])]
        inputs = {(s.preprocessing, s.side, s.antialias) for s in fitting or self.stages}
        if len(inputs) > 1:
            numbers = ", ".join(str(one.stage) for one in fitting or self.stages)
            raise PreprocessingError(
                f"stages {numbers} see the image differently: choose one with --stage."
            )
        return (fitting or self.stages)[0]

    def compare(self, array: NDArray[Any], layout: Layout | None, stage: StageInput) -> Comparison:
        """Compare a client's `array` with what `stage` takes. Raises PreprocessingError if it is no image."""
        whole = decode_whole(self.content, MAX_PIXELS)
        made = variants(self.content, whole, self.image, self.manifest.input.resize, stage)
        return compare(array, layout, stage, made)


def read_array(file: Path) -> NDArray[Any]:
    """The array in a .npy file. Raises PreprocessingError if it is none, or too large."""
    try:
        if file.stat().st_size > MAX_ARRAY_BYTES:
            raise PreprocessingError(f"{file} has more than {MAX_ARRAY_BYTES} bytes.")
        array = np.load(file, allow_pickle=False)
    except OSError as error:
        raise PreprocessingError(
            f"{file} cannot be read: {error.strerror or 'it ends early'}."
        ) from error
    # Other files, those that are cut off, and arrays of objects.
    except ARRAY_DAMAGE as error:
        raise PreprocessingError(f"{file} is no .npy file with an array of numbers.") from error
    if not isinstance(array, np.ndarray):
        raise PreprocessingError(f"{file} holds several arrays; save one with numpy.save.")
    return array


def _fits(array: NDArray[Any], sides: tuple[int, ...]) -> bool:
    shape = array.shape[1:] if array.ndim == 4 else array.shape
    return shape in ((*sides, 3), (3, *sides))
