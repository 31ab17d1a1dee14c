"""How one request is classified, and what it gets back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from exports.bundle.policy import Policy
from serving.errors import ServingError
from serving.inference.engine import Prediction

Priority = Literal["normal", "low"]


# What an image of a request gets; the error is one of IMAGE_ERRORS.
ImageResult = Prediction | ServingError
# Why a shadow has no result: no worker was idle in time, the cap on the work of shadows was reached, too many
# waited, a stage failed, or the model or the server ended.
ShadowDrop = Literal["busy", "cap", "full", "failed", "ended"]


class ShadowResult(NamedTuple):
    """A sample left at exit `exit_`, from 1, where its policy's measure was `measured`; and whether the
    likeliest class there is that of the ensemble of all exits."""

    exit_: int
    measured: float
    agrees: bool


@dataclass(frozen=True)
class ShadowOptions:
    """Of the samples of a request that leave before the last exit, the share that goes on to full depth as
    shadows after the answer. `report` gets their results, `dropped` why one has none; any thread calls them,
    and they must not block."""

    share: float
    report: Callable[[ShadowResult], None]
    dropped: Callable[[ShadowDrop], None]


@dataclass
class BatchResult:
    """A request's predictions, one per image, with an error in place of each that could not be made.
    `queue`, `decode` and `compute` are the seconds that the image finished last spent waiting, decoding
    and in stages."""

    predictions: list[ImageResult]
    queue: float
    decode: float
    compute: float

    @property
    def served(self) -> float:
        """The seconds from admission until the last image was finished."""
        return self.queue + self.decode + self.compute

    @property
    def failure(self) -> ServingError | None:
        """The error of the whole request, if there is one: that of a lone image; and that of the first
        image if there is no prediction and every error is the server's (5xx)."""
        errors = [found for found in self.predictions if isinstance(found, ServingError)]
        if len(errors) < len(self.predictions) or not errors:
            return None
        if len(errors) == 1 or all(error.status >= 500 for error in errors):
            return errors[0]
        return None


@dataclass(frozen=True)
class ExitReached:
    """Image `image` of a request, from 0, reached an exit; `left` if it was answered there. `compute` is the
    seconds that it has spent in stages so far."""

    image: int
    prediction: Prediction
    left: bool
    compute: float


@dataclass(frozen=True)
class ImageFailed:
    """Image `image` of a request of several, from 0, gets no prediction."""

    image: int
    error: ServingError


@dataclass(frozen=True)
class Load:
    """The load of one engine since its start: images of normal priority `admitted` and `finished`, and the
    seconds of workers that they and those of low priority took. `wait` is the predicted wait in seconds of a
    new image, of all engines; `slowdown` how much longer batches take than when the costs were measured."""

    admitted: int
    finished: int
    busy_s: float
    low_busy_s: float
    wait: float
    slowdown: float


OnExit = Callable[[ExitReached], None]
OnFailed = Callable[[ImageFailed], None]
OnAnswer = Callable[[BatchResult], None]


@dataclass
class RequestOptions:
    """How to classify the images of one request; each of them leaves separately.

    - `deadline` is a `time.perf_counter()` value. An image that has reached an exit by then is
      answered from its deepest one.
    - `on_exit` is called on the event loop, once per image and exit reached.
    - `on_failed` is called on the event loop for each image that fails; not for a lone one.
    - `on_answer` is called on the event loop once all images are answered or have failed, unless the
      request fails.
    - With `run_all_exits`, images run the exits after their answer as well, and the call returns after
      the last one.
    - `shadow` says which images become shadows; by default none.
    """

    policy: Policy
    deadline: float | None = None
    priority: Priority = "normal"
    on_exit: OnExit | None = None
    on_failed: OnFailed | None = None
    on_answer: OnAnswer | None = None
    run_all_exits: bool = False
    shadow: ShadowOptions | None = None

    @property
    def only_the_answer(self) -> bool:
        """Whether an exit before the answer's, or after it, is of no use."""
        wanted = self.deadline, self.on_exit, self.shadow
        return not self.run_all_exits and all(each is None for each in wanted)
