"""The schema of a bundle's manifest.json. Nothing here reads a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from exports.bundle.certificate import Reference, Target
from exports.bundle.policy import Scaling
from exports.bundle.provenance import Provenance
from exports.bundle.schema_types import Count, Factor, FileName, Part, Percent, Sha256
from exports.options import Precision, ResizeRule

# Format 2 has stages that take the image; see `format_of`.
FORMATS = (1, 2)
MANIFEST = "manifest.json"
POLICY = "policy.json"
GEARS = "gears.json"
CALIBRATION = "calibration.npz"
CARD = "README.md"
# Number of logits in a calibration table: 1 GiB as float32, five exits on ImageNet's 50,000 validation
# images.
MAX_TABLE_LOGITS = 1 << 28
# The search sets thresholds at eight exits at most, however many there are; but each exit is a session and a
# queue of the server, and running ensembles of K exits take K^2 sums. Recipes have the same limit.
MAX_EXITS = 32

FeatureType = Literal["float32", "uint8", "int8"]
StageInput = Literal["features", "image"]


class InputSpec(Part):
    """The network's input: uint8 RGB images of `height` x `width`.

    center_crop: an image is scaled until it covers the input, and the rest is cropped evenly;
    stretch: it is scaled to the input, and its aspect ratio may change.
    """

    height: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=4096)]
    resize: ResizeRule = "center_crop"


class Accuracy(Part):
    """Top-1 accuracy in percent, of one exit alone and of the ensemble of all exits up to it."""

    single: Percent
    running: Percent


class ExitEntry(Part):
    """Stage k with head k. `macs` and `params` count stages and heads 1..k: the cost of leaving here.

    `input` is what the stage takes: the features of stage k-1, or the image. Stage 1 takes the image.
    `feature_shape` is the shape (C, H, W) of the stage's output features, None if the next stage takes
    the image or if there is none, and `feature_type` their type.
    """

    file: FileName
    sha256: Sha256
    input: StageInput = "features"
    feature_shape: tuple[int, int, int] | None
    feature_type: FeatureType = "float32"
    macs: Count
    params: Count
    temperature: Factor
    running_temperature: Factor
    held_out: Accuracy
    test: Accuracy


class Conversion(Part):
    """How a bundle below float32 was converted, and what that cost in accuracy.

    `scheme` is the int8 type of (activations, weights): u8s8 or s8s8. `images` images of the held-out
    split determined the activations' ranges. `kept` names the nodes that stayed in float32, as
    stage/node. `held_out` and `test` are the accuracy of every exit before the conversion; `exits` has
    those after it. `agreement` is the share of test images, in percent, for which each exit gives the
    same class as before.
    """

    scheme: Literal["u8s8", "s8s8"] | None
    images: Annotated[int, Field(ge=0)]
    kept: tuple[str, ...]
    held_out: tuple[Accuracy, ...]
    test: tuple[Accuracy, ...]
    agreement: tuple[Percent, ...]


class GraphEntry(Part):
    """A whole network in one file.

    exit: image -> logits of exit `exit`; routed: image and thresholds -> answers, where each sample
    leaves at its own exit; maps: image -> class-activation maps of every exit. `exit` is None for the
    last two.
    """

    kind: Literal["exit", "routed", "maps"]
    exit: Annotated[int, Field(ge=1)] | None
    file: FileName
    sha256: Sha256


class CalibrationEntry(Part):
    """The calibration table's file.

    Under the target `agreement` the samples had no labels. The table has the answers of `reference` in their
    place, the last network's or the ensemble's, and every figure called accuracy is the agreement with them.
    `chosen_on` is the number of samples that temperatures and weights were fitted on and policies are chosen
    on, half or a third of all; the others certify. Bundles of earlier versions lack it, and half it is.
    """

    file: FileName
    sha256: Sha256
    samples: Annotated[int, Field(gt=0)]
    split: str
    target: Target = "labels"
    reference: Reference = "last"
    chosen_on: Annotated[int, Field(ge=0)] | None = None

    @field_validator("chosen_on")
    @classmethod
    def _is_half_or_a_third(cls, chosen_on: int | None, info: ValidationInfo) -> int | None:
        """Other divisions are refused, so that nobody can try many and keep the luckiest."""
        samples = info.data.get("samples", 0)
        if chosen_on not in (None, samples // 2, samples // 3):
            raise ValueError(f"must be half or a third of the {samples} samples, rounded down")
        return chosen_on

    @property
    def selection_size(self) -> int:
        """How many samples are chosen on."""
        return self.samples // 2 if self.chosen_on is None else self.chosen_on


class Manifest(Part):
    """manifest.json. `labels` are the class names in the order of the logits."""

    format: Literal[1, 2]
    name: FileName
    version: FileName
    labels: tuple[str, ...]
    input: InputSpec
    precision: Precision
    conversion: Conversion | None = None
    exits: Annotated[tuple[ExitEntry, ...], Field(min_length=1, max_length=MAX_EXITS)]
    graphs: tuple[GraphEntry, ...] = ()
    ensemble_weights: tuple[Factor, ...]
    calibration: CalibrationEntry
    provenance: Provenance

    @field_validator("exits", mode="before")
    @classmethod
    def _stage_1_takes_the_image(cls, exits: Any) -> Any:
        """Fill in the `input` of stage 1, which format 1 leaves out."""
        if not isinstance(exits, list | tuple) or not exits:
            return exits
        first, *others = exits
        if isinstance(first, dict):
            return [{"input": "image"} | first, *others]
        if isinstance(first, ExitEntry) and "input" not in first.model_fields_set:
            return [first.model_copy(update={"input": "image"}), *others]
        return exits

    @model_validator(mode="after")
    def _stages_fit_each_other(self) -> Self:
        if self.exits[0].input != "image":
            raise ValueError("stage 1 must take the image")
        if self.format < format_of(self.exits):
            raise ValueError("only stage 1 takes the image in format 1")
        if self.format == 1 and self.provenance.followers:
            raise ValueError("a bundle of format 1 has no followers")
        if self.format == 1 and self.calibration.target != "labels":
            raise ValueError("the calibration table of a bundle of format 1 has labels")
        following = [entry.input for entry in self.exits[1:]]
        for k, (entry, input_) in enumerate(zip(self.exits, [*following, None], strict=True), 1):
            if input_ == "features" and entry.feature_shape is None:
                raise ValueError(
                    f"exit {k} must have a feature_shape, since stage {k + 1} takes its features"
                )
            if input_ != "features" and entry.feature_shape is not None:
                raise ValueError(f"exit {k} has a feature_shape, but no stage takes its features")
        return self

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if len(self.ensemble_weights) != len(self.exits):
            raise ValueError("ensemble_weights must have one entry per exit")
        if len(self.labels) < 2 or len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must be at least two and all different")
        if len(self.provenance.test_default.exit_shares) != len(self.exits):
            raise ValueError("exit_shares must have one entry per exit")
        conversion = self.conversion
        if conversion and {
            len(conversion.held_out),
            len(conversion.test),
            len(conversion.agreement),
        } != {len(self.exits)}:
            raise ValueError("conversion must have one accuracy per exit and split")
        for graph in self.graphs:
            exits = range(1, len(self.exits) + 1)
            if graph.exit not in (exits if graph.kind == "exit" else (None,)):
                raise ValueError(f"the graph {graph.file} is of an exit that does not exist")
        if self.calibration.samples * len(self.exits) * len(self.labels) > MAX_TABLE_LOGITS:
            raise ValueError(f"the calibration table has more than {MAX_TABLE_LOGITS} logits")
        if sum(graph.kind == "maps" for graph in self.graphs) > 1:
            raise ValueError("there is more than one graph of maps")
        names = [name.casefold() for name in (MANIFEST, POLICY, GEARS, CARD, *self.files)]
        if len(set(names)) != len(names):
            raise ValueError("every file must have a name of its own")
        return self

    @model_serializer(mode="wrap")
    def _without_later_fields(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Fields that were added later are left out where they say nothing: earlier versions refuse them."""
        content: dict[str, Any] = handler(self)
        if self.format == 1:
            for entry in content["exits"]:
                del entry["input"]
            del content["provenance"]["followers"]
        if self.calibration.target == "labels":
            del content["calibration"]["target"]
        if self.calibration.reference == "last":
            del content["calibration"]["reference"]
        if self.calibration.selection_size == self.calibration.samples // 2:
            del content["calibration"]["chosen_on"]
        return content

    @property
    def inputs(self) -> tuple[StageInput, ...]:
        """What each stage takes."""
        return tuple(entry.input for entry in self.exits)

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files that the manifest has a hash of: stages, calibration table, graphs."""
        stages = [entry.file for entry in self.exits]
        return (*stages, self.calibration.file, *(graph.file for graph in self.graphs))

    @property
    def cam(self) -> GraphEntry | None:
        """The graph of class-activation maps, or None."""
        return next((graph for graph in self.graphs if graph.kind == "maps"), None)

    @property
    def scaling(self) -> Scaling:
        """The parameters that calibrate this network's logits."""
        return Scaling(
            temperatures=tuple(entry.temperature for entry in self.exits),
            running_temperatures=tuple(entry.running_temperature for entry in self.exits),
            weights=self.ensemble_weights,
        )


def format_of(exits: Sequence[ExitEntry]) -> Literal[1, 2]:
    """The oldest format that a bundle of `exits` can have, so that earlier versions can read it: 2 if a
    stage after the first takes the image, else 1."""
    return 2 if any(entry.input == "image" for entry in exits[1:]) else 1
