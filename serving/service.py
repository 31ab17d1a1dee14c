"""The state of one application."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from fastapi import Depends
from starlette.requests import Request
from starlette.types import Scope

from exports.bundle.policy import Policy
from exports.bundle.resolve import resolve_bundle
from offramp.errors import OfframpError
from serving.budgets.budgets import Budgets
from serving.budgets.metrics import BudgetMetrics
from serving.canary.canaries import Canaries
from serving.canary.canary import Plan, Trial
from serving.connection import Uploads
from serving.drift.metrics import DriftMetrics
from serving.drift.monitor import DriftMonitor
from serving.errors import DrainingError, NotReadyError
from serving.gears.shifter import GearShifter
from serving.inference.cam import CamQueue
from serving.inference.engine import Prediction
from serving.jobs.store import JobStore
from serving.models.manager import ManagerFactory, ModelManager
from serving.models.registry import LoadedModel, ModelRegistry, default_bundles
from serving.models.repository import Repository
from serving.recording.metrics import RecordingMetrics
from serving.recording.recorder import Images, Recorder
from serving.recording.sampler import FullDepthSampler
from serving.recording.store import RecordStore
from serving.scheduling.dispatcher import Dispatcher
from serving.scheduling.options import BatchResult
from serving.settings import Settings
from serving.shadow.metrics import ShadowMetrics
from serving.shadow.monitor import ShadowMonitor
from serving.telemetry.metrics import Metrics

Phase = Literal["starting", "ready", "draining"]


class Service:
    """Settings, models, workers, metrics and phase of one application."""

    def __init__(
        self,
        settings: Settings,
        *,
        dispatcher: type[Dispatcher] = Dispatcher,
        manager: ManagerFactory = ModelManager,
    ) -> None:
        """Raises SettingsError if the repository is not a directory, if requests cannot be recorded or jobs
        stored in their directories, or if the file of budgets is not valid."""
        self.settings = settings
        self.metrics = Metrics()
        self.models = ModelRegistry()
        self.phase: Phase = "starting"
        self.uploads = Uploads(settings.max_queue_bytes)
        self.dispatcher = dispatcher(
            workers=settings.workers,
            max_queue_ms=settings.max_queue_ms,
            max_queue_bytes=settings.max_queue_bytes,
            max_pixels=settings.max_pixels,
            metrics=self.metrics,
            max_shadow_work=settings.shadow_max_work,
        )
        self.cam_queue = CamQueue()
        self.drift = DriftMonitor(self.models, DriftMetrics(self.metrics.registry))
        self.drift.start()
        self.gears = self._gear_shifter()
        self.recording = self._start_recording()
        self.budgets = None
        if settings.budgets is not None:
            self.budgets = Budgets(settings.budgets, BudgetMetrics(self.metrics.registry))
        self.jobs = JobStore(settings.jobs, settings) if settings.jobs is not None else None
        embedded = () if settings.repository else default_bundles()
        self.repository = Repository(settings.bundles or embedded, settings.repository)
        self.manager = manager(
            settings, self.models, self.repository, self.dispatcher, self.metrics
        )
        self.canaries = Canaries(
            self.models,
            self.manager,
            self.repository,
            self.dispatcher,
            self.metrics,
            latency_target=settings.target_p99_ms is not None,
        )
        self.shadow = self._shadow_monitor()

    def load(self) -> None:
        """Load, warm and measure the models; a second call does nothing.

        Raises BundleError and the like for a bundle in `settings`. One in the repository that cannot be
        loaded is logged and left out.
        """
        if self.phase != "starting":
            return
        for path in self.repository.bundles:
            self.manager.load_first(path)
        for path in self.repository.available():
            if path in self.repository.bundles:
                continue
            try:
                self.manager.load_first(path)
            except OfframpError as error:
                self.repository.refused(path, str(error))
        self._start_canary()
        self.phase = "ready"

    async def load_model(self, name: str) -> LoadedModel:
        """Load the bundle called `name`, replacing a served one of that name."""
        return await self.manager.load(name)

    async def unload_model(self, name: str) -> None:
        """Stop serving the model called `name`."""
        await self.manager.unload(name)

    def answered(
        self,
        scope: Scope,
        model: LoadedModel,
        policy: Policy,
        images: Images,
        result: BatchResult,
        seconds: float,
        *,
        own_options: bool,
        low_priority: bool,
        trial: Trial | None,
    ) -> None:
        """Count and record an answer of `model` under `policy`, `seconds` after the request's arrival. With
        `own_options`, such as a threshold, a deadline or a lower gear, images may have left elsewhere than
        the model's policy lets them. The latency target is about the time from admission of requests of
        normal priority, for a client may take long to send an image. `trial` is the request's part in the
        comparison with a canary, None without one."""
        results = result.predictions
        self.metrics.answered(model.name, results, seconds)
        if trial is not None:
            self.canaries.answered(trial, images, result, seconds, low_priority=low_priority)
        if self.gears is not None and not low_priority:
            self.gears.answered(model, time.monotonic(), result.served)
        # The tests for drift skip answers of a model that is not the one served, such as a canary.
        if not own_options:
            self.drift.observe(model, [one for one in results if isinstance(one, Prediction)])
        if self.recording is not None:
            request_id = scope["state"]["request_id"]
            self.recording.answered(request_id, model, policy, images, results)

    def keeps_images(self, trial: Trial | None) -> bool:
        """Whether `answered` needs the images of a request of `trial`."""
        return self.recording is not None or (trial is not None and trial.role == "canary")

    def require_ready(self) -> None:
        """Raise NotReadyError or DrainingError unless the server is ready."""
        if self.phase == "starting":
            raise NotReadyError("The models are not loaded yet.")
        if self.phase == "draining":
            raise DrainingError("The server is shutting down.")
        if len(self.models) == 0:
            raise NotReadyError("No model is loaded.")

    def drain(self) -> None:
        """Report to probes that the server is not ready; requests are still answered."""
        self.phase = "draining"

    def close(self) -> None:
        """Finish accepted work and end the worker threads."""
        self.drain()
        self.drift.close()
        self.cam_queue.close()
        self.dispatcher.close()
        if self.recording is not None:
            self.recording.recorder.close()
        if self.jobs is not None:
            self.jobs.close()

    def _start_canary(self) -> None:
        settings = self.settings
        if settings.canary is not None:
            path = resolve_bundle(settings.canary).absolute()
            plan = Plan(share=settings.canary_share, header=settings.canary_header)
            self.canaries.start_first(path, plan)

    def _gear_shifter(self) -> GearShifter | None:
        settings = self.settings
        if settings.target_p99_ms is None:
            return None
        return GearShifter(
            self.models,
            self.dispatcher,
            self.metrics,
            target_s=settings.target_p99_ms / 1000,
            workers=settings.workers,
        )

    def _shadow_monitor(self) -> ShadowMonitor | None:
        share = self.settings.shadow_share
        if not share:
            return None
        metrics = ShadowMetrics(self.metrics.registry)
        return ShadowMonitor(self.models, self.manager, metrics, share)

    def _start_recording(self) -> FullDepthSampler | None:
        settings = self.settings
        if settings.record is None:
            return None
        store = RecordStore(settings.record, settings.record_max_bytes)
        metrics = RecordingMetrics(self.metrics.registry)
        recorder = Recorder(store, metrics, with_images=settings.record_images)
        return FullDepthSampler(recorder, self.dispatcher, metrics, settings.record_full_share)


def of_request(request: Request) -> Service:
    """The service of the app that handles `request`."""
    service: Service = request.app.state.service
    return service


ServiceOf = Annotated[Service, Depends(of_request)]
