"""What can go wrong with a request on Ray only."""

from __future__ import annotations

from serving.errors import ServingError


class StageLostError(ServingError):
    """A stage's replica ended with samples that nobody else has."""

    status = 503
    code = "stage_lost"

    def __init__(self, stage: int) -> None:
        super().__init__(f"The replica of stage {stage} is gone; try again.")
        self.headers = {"Retry-After": "1"}


class StageSilentError(ServingError):
    """A stage gave no answer, and nobody said that its replica is gone."""

    status = 503
    code = "stage_silent"

    def __init__(self, stage: int, seconds: float) -> None:
        super().__init__(f"Stage {stage} has not answered for {seconds:g} s; try again.")
        self.headers = {"Retry-After": "1"}


class PolicyStoreUnavailableError(ServingError):
    """The board of policies gave no answer; whether it has made the change is not known."""

    status = 503
    code = "policy_store_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The policy store does not answer; check which policy is in force before trying again."
        )
        self.headers = {"Retry-After": "1"}


class ManagedByConfigError(ServingError):
    """One replica alone cannot load or unload a model."""

    status = 409
    code = "managed_by_config"

    def __init__(self) -> None:
        super().__init__(
            "Which models are served is set for all replicas at once: change user_config, and deploy."
        )
