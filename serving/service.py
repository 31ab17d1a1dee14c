"""One app's state, in one place."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import Depends
from starlette.requests import Request

from serving.errors import DrainingError, NotReadyError, NotSupportedError
from serving.metrics import Metrics
from serving.models import Models, load_models
from serving.settings import Settings
from serving.work import Work

Phase = Literal["starting", "ready", "draining"]


class Service:
    """Settings, models, workers and metrics of one app, and the phase of its life."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.models = Models()
        self.phase: Phase = "starting"
        self.work = Work(
            workers=settings.workers,
            max_queue_ms=settings.max_queue_ms,
            max_queue_bytes=settings.max_queue_bytes,
            max_pixels=settings.max_pixels,
            metrics=self.metrics,
        )

    def load(self) -> None:
        """Load, warm and measure the models, once; raises what `load_models` raises."""
        if self.phase == "starting":
            self.models = load_models(self.settings, self.metrics)
            for model in self.models:
                self.work.open(model.engine)
            self.phase = "ready"

    def require_ready(self) -> None:
        """Raise NotReadyError or DrainingError unless requests should be sent here."""
        if self.phase == "starting":
            raise NotReadyError("The models are not loaded yet.")
        if self.phase == "draining":
            raise DrainingError("The server is shutting down.")

    async def load_model(self, name: str) -> None:
        """Load or replace the model called `name`; raises NotSupportedError without a repository."""
        raise NotSupportedError("The server has no repository to load models from.")

    async def unload_model(self, name: str) -> None:
        """Unload the model called `name`; raises NotSupportedError without a repository."""
        raise NotSupportedError("The server has no repository, so its models stay loaded.")

    def drain(self) -> None:
        """Tell probes that no new requests should come; those that do are still answered."""
        self.phase = "draining"

    def close(self) -> None:
        """Finish accepted work and end the worker threads."""
        self.drain()
        self.work.close()


def of_request(request: Request) -> Service:
    """The service behind the app that got `request`."""
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(of_request)]
