"""Requests that start again after the loss of a stage, without a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from exports.bundle.policy import Policy
from serving.inference.engine import Prediction
from serving.ray.errors import StageLostError
from serving.ray.remote import MAX_ATTEMPTS, RetryingDispatcher
from serving.scheduling.dispatcher import Dispatcher
from serving.scheduling.options import BatchResult, ExitReached, RequestOptions
from serving.telemetry.metrics import Metrics

POLICY = Policy(thresholds=(2, 2), max_exit=3)
RESULT = BatchResult([], 0.0, 0.0, 0.0)


@pytest.fixture
def dispatcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[RetryingDispatcher]:
    monkeypatch.setattr("serving.ray.remote.RETRY_PAUSE_S", 0.0)
    dispatcher = RetryingDispatcher(
        workers=1, max_queue_ms=1, max_queue_bytes=1, max_pixels=1, metrics=Metrics()
    )
    yield dispatcher
    dispatcher.close()


def lose_stages(monkeypatch: pytest.MonkeyPatch, method: str, times: int) -> list[int]:
    """Have `Dispatcher.method` report exits 1 and 2 and an answer, and raise StageLostError the first
    `times`; returns the list that it appends its attempts to."""
    attempts: list[int] = []

    async def classify(self: Any, engine: Any, images: Any, options: RequestOptions) -> BatchResult:
        attempts.append(len(attempts) + 1)
        for exit_ in (1, 2):
            prediction = Prediction(
                np.zeros(1, np.float32), 0, 1.0, exit_, "confident", "max_prob", 1.0
            )
            if options.on_exit is not None:
                options.on_exit(ExitReached(0, prediction, left=exit_ == 2, compute=0.001 * exit_))
        if options.on_answer is not None:
            options.on_answer(RESULT)
        if len(attempts) <= times:
            raise StageLostError(3)
        return RESULT

    monkeypatch.setattr(Dispatcher, method, classify)
    return attempts


@pytest.mark.parametrize("method", ["classify", "classify_pixels"])
def test_a_request_starts_again_and_reports_every_exit_once(
    dispatcher: RetryingDispatcher, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    attempts = lose_stages(monkeypatch, method, times=2)
    exits: list[int] = []
    answers: list[BatchResult] = []
    options = RequestOptions(
        POLICY,
        on_exit=lambda event: exits.append(event.prediction.exit),
        on_answer=answers.append,
    )
    assert asyncio.run(getattr(dispatcher, method)(None, [], options)) is RESULT
    assert attempts == [1, 2, 3]
    assert exits == [1, 2]
    assert answers == [RESULT]


def test_a_request_fails_after_too_many_attempts(
    dispatcher: RetryingDispatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = lose_stages(monkeypatch, "classify", times=MAX_ATTEMPTS)
    with pytest.raises(StageLostError, match="stage 3"):
        asyncio.run(dispatcher.classify(None, [], RequestOptions(POLICY)))  # type: ignore[arg-type]
    assert len(attempts) == MAX_ATTEMPTS
