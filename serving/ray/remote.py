"""Stages that run in other deployments, and a dispatcher that survives the loss of their replicas."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayTaskError

from exports.bundle.errors import BundleError
from exports.bundle.policy import Floats
from exports.bundle.reader import Bundle
from serving.inference.engine import Engine
from serving.inference.runners import Rows, Tensor
from serving.inference.sessions import Sessions
from serving.ray.errors import StageLostError, StageSilentError
from serving.ray.features import is_array, join, take, whole
from serving.ray.policy_store import key_of
from serving.ray.stage import Answer, Call
from serving.scheduling.dispatcher import Dispatcher
from serving.scheduling.options import BatchResult, ExitReached, ImageFailed, RequestOptions

log = logging.getLogger("offramp.serving")
# Attempts at a request, and the pause after the first one, which doubles with each: Ray notices a dead
# replica within about a second.
MAX_ATTEMPTS = 5
RETRY_PAUSE_S = 0.1
# Limit of one call of a stage, including the calls before it and the start of a replica if there is none.
# A machine that vanishes closes no connection, and Ray takes about as long to notice it.
STAGE_TIMEOUT_S = 30.0


class RemoteRunner:
    """A bundle's stages, called through the handles of their deployments. Blocks the calling thread and
    releases the GIL."""

    def __init__(self, bundle: Bundle, source: str, handles: Sequence[Any]) -> None:
        """`source` is how stages find the bundle. Raises BundleError if it has more stages than there are
        deployments."""
        if len(bundle.stages) > len(handles):
            raise BundleError(
                f"{bundle.path} has {len(bundle.stages)} stages, but the application was built for "
                f"{len(handles)}; deploy it again."
            )
        self._handles = handles
        self._source = source
        self._bundle = key_of(bundle.manifest).bundle

    def run(self, stage: int, inputs: Tensor) -> tuple[Tensor | None, Floats]:
        """See Runner.run. Raises StageLostError if a replica ended with the features, StageSilentError
        if there is no answer within STAGE_TIMEOUT_S."""
        answer = self.call(stage, inputs, STAGE_TIMEOUT_S)
        return answer.features, answer.logits

    def call(self, stage: int, inputs: Tensor, timeout_s: float | None = None) -> Answer:
        """Run `stage` in one of its replicas; waits `timeout_s`, or as long as it takes."""
        features = whole(inputs, len(inputs)) if is_array(inputs) else inputs
        call = Call(self._bundle, self._source, features)
        response = self._handles[stage - 1].run.remote(call)
        try:
            answer = response.result(timeout_s=timeout_s)
        except TimeoutError as error:
            response.cancel()
            raise StageSilentError(stage, timeout_s or 0) from error
        except RayActorError as error:
            raise StageLostError(stage) from error
        except RayTaskError as error:
            if isinstance(error.cause, BundleError):
                raise error.cause from None
            raise
        if not isinstance(answer, Answer):
            raise StageLostError(stage - 1)
        return answer

    def take(self, tensor: Tensor, rows: Rows) -> Tensor:
        return tensor[rows] if is_array(tensor) else take(tensor, rows)

    def join(self, tensors: Sequence[Tensor]) -> Tensor:
        return np.concatenate(tensors) if is_array(tensors[0]) else join(tensors)


def remote_sessions(bundle: Bundle, source: str, handles: Sequence[Any]) -> Sessions:
    """Remote stages for an engine of `bundle`; the first stage is called once for its provider."""
    runner = RemoteRunner(bundle, source, handles)
    spec = bundle.manifest.input
    blank = np.zeros((1, spec.height, spec.width, 3), dtype=np.uint8)
    return Sessions(runner, runner.call(1, blank).provider)


class RetryingDispatcher(Dispatcher):
    """Starts a request again when a stage's replica was lost with the request's features.

    A replica that stops in good order loses its features, too.
    """

    async def classify(
        self, engine: Engine, files: Sequence[bytes], options: RequestOptions
    ) -> BatchResult:
        """See Dispatcher.classify; raises StageLostError after MAX_ATTEMPTS."""
        classify = super().classify
        return await _retry(lambda attempt: classify(engine, files, attempt), options)

    async def classify_pixels(
        self, engine: Engine, images: NDArray[np.uint8], options: RequestOptions
    ) -> BatchResult:
        """See Dispatcher.classify_pixels; raises StageLostError after MAX_ATTEMPTS."""
        classify = super().classify_pixels
        return await _retry(lambda attempt: classify(engine, images, attempt), options)


async def _retry(
    classify: Callable[[RequestOptions], Awaitable[BatchResult]], options: RequestOptions
) -> BatchResult:
    """Call `classify` until no stage is lost. Each exit and the answer are reported once."""
    once = _report_once(options)
    for attempt in range(1, MAX_ATTEMPTS + 1):
        try:
            return await classify(once)
        except StageLostError as error:
            if attempt == MAX_ATTEMPTS:
                raise
            log.warning("a request starts again: %s", error)
            await asyncio.sleep(RETRY_PAUSE_S * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def _report_once(options: RequestOptions) -> RequestOptions:
    """`options` whose callbacks ignore what an earlier attempt has reported."""
    on_exit, on_failed, on_answer = options.on_exit, options.on_failed, options.on_answer
    reported: set[tuple[int, int]] = set()
    failed: set[int] = set()
    answered = False

    def report_exit(event: ExitReached) -> None:
        key = (event.image, event.prediction.exit)
        if on_exit is not None and key not in reported:
            reported.add(key)
            on_exit(event)

    def report_failed(event: ImageFailed) -> None:
        if on_failed is not None and event.image not in failed:
            failed.add(event.image)
            on_failed(event)

    def report_answer(result: BatchResult) -> None:
        nonlocal answered
        if on_answer is not None and not answered:
            answered = True
            on_answer(result)

    return replace(
        options,
        on_exit=None if on_exit is None else report_exit,
        on_failed=None if on_failed is None else report_failed,
        on_answer=None if on_answer is None else report_answer,
    )
