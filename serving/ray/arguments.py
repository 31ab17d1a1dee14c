"""What the application is built from: `args` in a file for `serve deploy`, flags of `offramp serve --ray`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exports.bundle.policy import Policy
from exports.bundle.resolve import EMBEDDED_NAME
from offramp.validation import first_problem
from serving.errors import SettingsError
from serving.settings import Settings, read_settings

Form = Literal["replicas", "stages"]
# The stages form's workers wait for stages most of the time. Fewer of them make larger batches, of which a
# call costs as much as of small ones; as many as a network of four has stages keep each of them busy.
STAGES_WORKERS = 4
# As `resolve_bundle` takes them, and as every machine finds them.
Bundles = Annotated[tuple[str, ...], Field(min_length=1)]
M = TypeVar("M", bound=BaseModel)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scaling(_Model):
    """How many replicas a deployment has, and what each of them takes of its machine."""

    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 4
    # Ongoing requests a replica is meant to have; more replicas come above it.
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16
    upscale_delay_s: Annotated[float, Field(ge=0)] = 5
    downscale_delay_s: Annotated[float, Field(ge=0)] = 60
    num_cpus: Annotated[float, Field(ge=0)] = 1
    # A fraction lets replicas share a GPU; set the provider to cuda then.
    num_gpus: Annotated[float, Field(ge=0)] = 0
    # With 1 and two replicas, the loss of a machine leaves one; Ray may put both on the same otherwise.
    max_replicas_per_node: Annotated[int, Field(ge=1, le=100)] | None = None


class Arguments(_Model):
    """`form` is replicas, the whole engine in each, or stages, each in a deployment of its own."""

    form: Form = "replicas"
    bundles: Bundles = (EMBEDDED_NAME,)
    policies: dict[str, Policy] = Field(
        {}, description="Policies by model, in place of those in the bundles."
    )
    settings: dict[str, Any] = Field({}, description="Settings of `offramp serve`, by name.")
    replicas: Scaling = Field(
        Scaling(), description="Scaling of the form replicas, and of the other form's ingress."
    )
    stages: tuple[Scaling, ...] = Field(
        (Scaling(target_ongoing_requests=2),),
        description="Scaling of the stages, the first one first; the last entry holds for the rest.",
    )

    def serving(self) -> Settings:
        """The settings of every replica; raises SettingsError.

        Ray's proxies do the listening, and a replica cannot know where. So it takes them to be open
        to the network, and asks for the key of admin routes, unless it is told another `host`.
        """
        settings = read_settings(**self.settings)
        own: dict[str, Any] = {"host": "0.0.0.0"}
        if self.form == "stages":
            own["workers"] = STAGES_WORKERS
        missing = own.keys() - settings.model_fields_set
        settings = settings.model_copy(update={name: own[name] for name in missing})
        if settings.bundles or settings.repository is not None or settings.watch:
            raise SettingsError(
                "On Ray, bundles are given to the application, not in its settings: bundles, "
                "repository and watch have no place there."
            )
        return settings

    def stage(self, number: int) -> Scaling:
        """The scaling of stage `number`, from 1."""
        return self.stages[min(number, len(self.stages)) - 1]


def read_arguments(given: object) -> Arguments:
    """`given`, checked; raises SettingsError."""
    return _read(Arguments, given, "args")


class ModelConfig(_Model):
    """What replicas serve: `user_config` of the ingress, which can change while they serve."""

    bundles: Bundles = (EMBEDDED_NAME,)
    policies: dict[str, Policy] = {}


def read_model_config(given: object) -> ModelConfig:
    """`given`, checked; raises SettingsError."""
    return _read(ModelConfig, given, "user_config")


def _read(kind: type[M], given: object, called: str) -> M:
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        problem = first_problem(error)
        where = ".".join((called, *problem.place))
        raise SettingsError(f"{where} is not valid: {problem.reason}.") from error
