"""An engine whose stages run in other deployments, and the scheduler's door that outlives their loss."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayTaskError

from exports.bundle.errors import BundleError
from exports.bundle.policy import Floats, Policy
from exports.bundle.reader import Bundle
from serving.inference.engine import Engine
from serving.inference.runners import Rows, Tensor
from serving.inference.sessions import Sessions
from serving.ray.errors import StageLostError, StageSilentError
from serving.ray.features import is_array, join, take, whole
from serving.ray.policy_store import key_of
from serving.ray.stage import Answer, Call
from serving.scheduling.dispatcher import BatchResult, Dispatcher, ExitReached, OnAnswer, OnExit

log = logging.getLogger("offramp.serving")
# How often a request begins anew, and how long it waits before that, in seconds: Ray notices a dead
# replica within about a second.
MAX_ATTEMPTS = 5
RETRY_PAUSE_S = 0.1
# Longest that a stage may take for a call, with those before it and the start of a replica where there
# is none, in seconds. A machine that vanishes says nothing, and Ray may take as long to notice; without
# an end to it, a worker of the ingress would wait for ever.
STAGE_TIMEOUT_S = 30.0


class RemoteRunner:
    """A bundle's stages by their deployments' handles. Blocks the thread that calls it, not Python."""

    def __init__(self, bundle: Bundle, source: str, handles: Sequence[Any]) -> None:
        """`source` is what stages find the bundle by. Raises BundleError if they have fewer deployments."""
        if len(bundle.stages) > len(handles):
            raise BundleError(
                f"{bundle.path} has {len(bundle.stages)} stages, but the application was built for "
                f"{len(handles)}; deploy it anew."
            )
        self._handles = handles
        self._source = source
        self._bundle = key_of(bundle.manifest).bundle

    def run(self, stage: int, inputs: Tensor) -> tuple[Tensor | None, Floats]:
        """See Runner.run; raises StageLostError if a replica took what it had with it, StageSilentError
        if it is not heard of within STAGE_TIMEOUT_S."""
        answer = self.ask(stage, inputs, STAGE_TIMEOUT_S)
        return answer.features, answer.logits

    def ask(self, stage: int, inputs: Tensor, within: float | None = None) -> Answer:
        """Have a replica of `stage` run it; waits `within` seconds, or as long as it takes."""
        features = whole(inputs, len(inputs)) if is_array(inputs) else inputs
        call = Call(self._bundle, self._source, features)
        response = self._handles[stage - 1].run.remote(call)
        try:
            answer = response.result(timeout_s=within)
        except TimeoutError as error:
            response.cancel()
            raise StageSilentError(stage, within or 0) from error
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
    """What an engine of `bundle` runs on; asks the first stage what it computes on."""
    runner = RemoteRunner(bundle, source, handles)
    spec = bundle.manifest.input
    blank = np.zeros((1, spec.height, spec.width, 3), dtype=np.uint8)
    return Sessions(runner, runner.ask(1, blank).provider)


class RetryingDispatcher(Dispatcher):
    """Begins a request anew when a stage's replica was lost with what it had of it.

    A replica that is stopped in good order takes its features with it, too.
    """

    async def classify(
        self,
        engine: Engine,
        files: Sequence[bytes],
        policy: Policy,
        *,
        on_exit: OnExit | None = None,
        on_answer: OnAnswer | None = None,
        **options: Any,
    ) -> BatchResult:
        """See Dispatcher.classify; raises StageLostError after MAX_ATTEMPTS."""
        classify = super().classify
        return await _again(
            lambda e, a: classify(engine, files, policy, on_exit=e, on_answer=a, **options),
            on_exit,
            on_answer,
        )

    async def classify_pixels(
        self,
        engine: Engine,
        images: NDArray[np.uint8],
        policy: Policy,
        *,
        on_exit: OnExit | None = None,
        on_answer: OnAnswer | None = None,
        **options: Any,
    ) -> BatchResult:
        """See Dispatcher.classify_pixels; raises StageLostError after MAX_ATTEMPTS."""
        classify = super().classify_pixels
        return await _again(
            lambda e, a: classify(engine, images, policy, on_exit=e, on_answer=a, **options),
            on_exit,
            on_answer,
        )


async def _again(
    attempt: Callable[[OnExit | None, OnAnswer | None], Awaitable[BatchResult]],
    on_exit: OnExit | None,
    on_answer: OnAnswer | None,
) -> BatchResult:
    """`attempt` until no stage is lost; whoever listens hears everything once."""
    seen: set[tuple[int, int]] = set()
    answered = False

    def exit_(found: ExitReached) -> None:
        at = (found.image, found.prediction.exit)
        if on_exit is not None and at not in seen:
            seen.add(at)
            on_exit(found)

    def answer(result: BatchResult) -> None:
        nonlocal answered
        if on_answer is not None and not answered:
            answered = True
            on_answer(result)

    for number in range(1, MAX_ATTEMPTS + 1):
        try:
            return await attempt(None if on_exit is None else exit_, on_answer and answer)
        except StageLostError as error:
            if number == MAX_ATTEMPTS:
                raise
            log.warning("a request begins anew: %s", error)
            await asyncio.sleep(RETRY_PAUSE_S * 2 ** (number - 1))
    raise AssertionError("unreachable")
