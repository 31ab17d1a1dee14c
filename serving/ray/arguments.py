"""The application's arguments: `args` in a file for `serve deploy`, or flags of `offramp serve --ray`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exports.bundle.policy import Policy
from exports.bundle.resolve import EMBEDDED
from offramp.validation import first_problem
from serving.errors import SettingsError
from serving.settings import Settings, read_settings

Form = Literal["replicas", "stages"]
# In the form stages, workers wait for calls most of the time. Fewer workers make larger batches, and a call
# costs about the same for any size; four keep each stage of a network of four busy.
STAGES_WORKERS = 4
# As `resolve_bundle` takes them; every machine must find them.
Bundles = Annotated[tuple[str, ...], Field(min_length=1)]
M = TypeVar("M", bound=BaseModel)


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Scaling(_Model):
    """How many replicas a deployment has, and the resources of each."""

    min_replicas: Annotated[int, Field(ge=0)] = 1
    max_replicas: Annotated[int, Field(ge=1)] = 4
    # Ongoing requests per replica; above it, replicas are added.
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16
    upscale_delay_s: Annotated[float, Field(ge=0)] = 5
    downscale_delay_s: Annotated[float, Field(ge=0)] = 60
    num_cpus: Annotated[float, Field(ge=0)] = 1
    # With a fraction, replicas share a GPU; set the provider to cuda.
    num_gpus: Annotated[float, Field(ge=0)] = 0
    # With 1 and two replicas, one survives the loss of a machine; otherwise Ray may put both on the same.
    max_replicas_per_node: Annotated[int, Field(ge=1, le=100)] | None = None


class Arguments(_Model):
    """`form` is `replicas`, each with the whole engine, or `stages`, each in its own deployment."""

    form: Form = "replicas"
    bundles: Bundles = tuple(EMBEDDED)
    policies: dict[str, Policy] = Field(
        {}, description="Policies by model, instead of those in the bundles."
    )
    settings: dict[str, Any] = Field({}, description="Settings of `offramp serve`, by name.")
    replicas: Scaling = Field(
        Scaling(),
        description="Scaling of the form replicas, and of the ingress in the form stages.",
    )
    stages: tuple[Scaling, ...] = Field(
        (Scaling(target_ongoing_requests=2),),
        description="Scaling of the stages, in order; the last entry applies to the rest.",
    )

    def read_settings(self) -> Settings:
        """The settings of every replica; raises SettingsError.

        Ray's proxies listen, and a replica cannot find out where. Unless `host` is set, it assumes that
        they are open to the network, so that admin routes need a key.
        """
        settings = read_settings(**self.settings)
        defaults: dict[str, Any] = {"host": "0.0.0.0"}
        if self.form == "stages":
            defaults["workers"] = STAGES_WORKERS
        missing = defaults.keys() - settings.model_fields_set
        settings = settings.model_copy(update={name: defaults[name] for name in missing})
        if settings.bundles or settings.repository is not None or settings.watch:
            raise SettingsError(
                "On Ray, bundles are an argument of the application: its settings must not contain "
                "bundles, repository or watch."
            )
        if settings.record is not None:
            raise SettingsError(
                "Requests cannot be recorded on Ray: feedback would reach any replica."
            )
        if settings.target_p99_ms is not None:
            raise SettingsError("Gears are not shifted on Ray: a policy is that of all replicas.")
        if settings.shadow_share > 0:
            raise SettingsError(
                "Exits are not checked on Ray: a raised threshold is that of one replica."
            )
        if settings.canary is not None:
            raise SettingsError(
                "There are no canaries on Ray: each replica would compare for itself."
            )
        if settings.jobs is not None:
            raise SettingsError("Jobs are not run on Ray: polling would reach any replica.")
        return settings

    def stage(self, number: int) -> Scaling:
        """The scaling of stage `number`, from 1."""
        return self.stages[min(number, len(self.stages)) - 1]


def read_arguments(args: object) -> Arguments:
    """`args`, validated; raises SettingsError."""
    return _validate(Arguments, args, "args")


class ModelConfig(_Model):
    """The models that replicas serve: `user_config` of the ingress, which can change while they run."""

    bundles: Bundles = tuple(EMBEDDED)
    policies: dict[str, Policy] = {}


def read_model_config(user_config: object) -> ModelConfig:
    """`user_config`, validated; raises SettingsError."""
    return _validate(ModelConfig, user_config, "user_config")


def _validate(model: type[M], value: object, name: str) -> M:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problem = first_problem(error)
        where = ".".join((name, *problem.place))
        raise SettingsError(f"{where} is not valid: {problem.reason}.") from error
