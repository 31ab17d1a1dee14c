"""Errors of requests that occur on Ray only."""

from __future__ import annotations

from serving.errors import ServingError


class StageLostError(ServingError):
    """A stage's replica ended, and with it the features of samples."""

    status = 503
    code = "stage_lost"

    def __init__(self, stage: int) -> None:
        super().__init__(f"The replica of stage {stage} is gone; try again.")
        self.headers = {"Retry-After": "1"}


class StageSilentError(ServingError):
    """A stage did not answer in time, and Ray has not reported its replica as lost."""

    status = 503
    code = "stage_silent"

    def __init__(self, stage: int, seconds: float) -> None:
        super().__init__(f"Stage {stage} has not answered for {seconds:g} s; try again.")
        self.headers = {"Retry-After": "1"}


class PolicyStoreUnavailableError(ServingError):
    """The policy store did not answer; the change may or may not have been made."""

    status = 503
    code = "policy_store_unavailable"

    def __init__(self) -> None:
        super().__init__(
            "The policy store does not answer; check which policy is in force before trying again."
        )
        self.headers = {"Retry-After": "1"}


class ManagedByConfigError(ServingError):
    """Models cannot be loaded or unloaded on one replica only."""

    status = 409
    code = "managed_by_config"

    def __init__(self) -> None:
        super().__init__(
            "Which models are served is set for all replicas at once: change user_config, and deploy."
        )
