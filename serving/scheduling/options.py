"""How one request is classified, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from exports.bundle.policy import Policy
from serving.inference.engine import Prediction

Priority = Literal["normal", "low"]


@dataclass(frozen=True)
class BatchResult:
    """A request's predictions, one per image. `queue`, `decode` and `compute` are the seconds that the
    image answered last spent waiting, decoding and in stages."""

    predictions: list[Prediction]
    queue: float
    decode: float
    compute: float


@dataclass(frozen=True)
class ExitReached:
    """Image `image` of a request, from 0, reached an exit; `left` if it was answered there."""

    image: int
    prediction: Prediction
    left: bool


OnExit = Callable[[ExitReached], None]
OnAnswer = Callable[[BatchResult], None]


@dataclass(frozen=True)
class RequestOptions:
    """How to classify the images of one request; each of them leaves separately.

    - `deadline` is a `time.perf_counter()` value. An image that has reached an exit by then is
      answered from its deepest one.
    - `on_exit` is called on the event loop, once per image and exit reached.
    - `on_answer` is called on the event loop once all images are answered.
    - With `run_all_exits`, images run the exits after their answer as well, and the call returns after
      the last one.
    """

    policy: Policy
    deadline: float | None = None
    priority: Priority = "normal"
    on_exit: OnExit | None = None
    on_answer: OnAnswer | None = None
    run_all_exits: bool = False
