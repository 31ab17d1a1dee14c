"""One stage as a deployment: calls of all requests that reach it, run as batches."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from ray import serve
from ray.exceptions import ObjectLostError

from exports.bundle.errors import BundleError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Floats
from exports.bundle.reader import load_bundle, stage_input
from exports.bundle.resolve import resolve_bundle
from serving.inference.sessions import open_stage
from serving.ray.arguments import read_model_config
from serving.ray.features import MAX_INLINE_BYTES, Features, count, gather, is_array, whole
from serving.ray.policy_store import key_of
from serving.scheduling.costs import MAX_BATCH
from serving.settings import Settings

# Features that do not arrive in so many seconds are taken for lost: what waits behind them goes on.
FEATURES_TIMEOUT_S = 10.0
# While a bundle is rolled out, calls come for the old and for the new one.
SPARE_BUNDLES = 1


@dataclass(frozen=True)
class Call:
    """Samples for a stage of the bundle `source`, as `resolve_bundle` takes it, with the key `bundle`."""

    bundle: str
    source: str
    features: Features


@dataclass(frozen=True)
class Answer:
    """Features of the samples, None after the last stage; logits float32 [n, classes]; and onnxruntime's
    provider that computed them."""

    features: Features | None
    logits: Floats
    provider: str


class LostFeatures:
    """In place of an answer: the process that had the features is gone."""


@dataclass(frozen=True)
class _Opened:
    session: Any
    provider: str


class Stage:
    """Stage `number`, from 1, of any bundle it is called for. Opens no other stage."""

    def __init__(self, number: int, settings: Settings) -> None:
        self._number = number
        self._settings = settings
        self._opened: OrderedDict[str, _Opened] = OrderedDict()
        self._kept = 1 + SPARE_BUNDLES

    async def reconfigure(self, given: dict[str, Any]) -> None:
        """Open the bundles that are served, before the first call comes."""
        bundles = read_model_config(given).bundles
        self._kept = len(bundles) + SPARE_BUNDLES
        for source in bundles:
            await asyncio.to_thread(self._open, source, None)

    async def run(self, call: Call) -> Answer | LostFeatures:
        """Run the stage on the samples of `call`, together with those of other calls that wait."""
        answer: Answer | LostFeatures = await self._batch(call)
        return answer

    # A batch begins as soon as the one before it has ended, with what has come meanwhile.
    @serve.batch(  # type: ignore[untyped-decorator]
        max_batch_size=MAX_BATCH,
        batch_wait_timeout_s=0,
        batch_size_fn=lambda calls: sum(count(call.features) for call in calls),
    )
    async def _batch(self, calls: list[Call]) -> list[Answer | LostFeatures]:
        arrays = await asyncio.gather(*(_fetch(call.features) for call in calls))
        answers: list[Answer | LostFeatures] = [LostFeatures()] * len(calls)
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row, (call, array) in enumerate(zip(calls, arrays, strict=True)):
            if array is not None:
                groups[call.source, call.bundle].append(row)
        for (source, bundle), rows in groups.items():
            given = [array for row in rows if (array := arrays[row]) is not None]
            found = await asyncio.to_thread(self._compute, source, bundle, given)
            for row, answer in zip(rows, found, strict=True):
                answers[row] = answer
        return answers

    def _compute(self, source: str, bundle: str, given: Sequence[NDArray[Any]]) -> list[Answer]:
        opened = self._opened.get(bundle) or self._open(source, bundle)
        self._opened.move_to_end(bundle)
        inputs = given[0] if len(given) == 1 else np.concatenate(given)
        outputs = opened.session.run(None, {stage_input(self._number): inputs})
        answers = []
        ends = np.cumsum([len(array) for array in given])
        for array, end in zip(given, ends.tolist(), strict=True):
            own = slice(end - len(array), end)
            features = _offer(outputs[0][own]) if len(outputs) == 2 else None
            answers.append(Answer(features, outputs[-1][own], opened.provider))
        return answers

    def _open(self, source: str, bundle: str | None) -> _Opened:
        """The session for the bundle `source`; raises BundleError if it is not `bundle` (any more)."""
        loaded = load_bundle(resolve_bundle(source))
        key = key_of(loaded.manifest)
        if bundle is not None and key.bundle != bundle:
            raise BundleError(f"{source} is not the bundle any more that the request began with.")
        if key.bundle not in self._opened and self._number <= len(loaded.stages):
            settings = self._settings
            session, provider = open_stage(
                loaded, self._number, settings.threads, settings.provider, settings.pool
            )
            session.run(None, {stage_input(self._number): _blank(loaded.manifest, self._number)})
            self._opened[key.bundle] = _Opened(session, provider)
            while len(self._opened) > self._kept:
                self._opened.popitem(last=False)
        return self._opened[key.bundle]


async def _fetch(features: Features) -> NDArray[Any] | None:
    """One array of `features`, mapped from Ray's shared memory where it lies there; None if it is lost."""
    try:
        async with asyncio.timeout(FEATURES_TIMEOUT_S):
            arrays = [
                piece.source if is_array(piece.source) else await piece.source for piece in features
            ]
    except (ObjectLostError, TimeoutError):
        return None
    return gather(features, arrays)


def _offer(features: NDArray[Any]) -> Features:
    """`features` for the next stage: as they are, or kept here until it has them."""
    own = np.ascontiguousarray(features)
    return whole(own if own.nbytes < MAX_INLINE_BYTES else ray.put(own), len(own))


def _blank(manifest: Manifest, stage: int) -> NDArray[Any]:
    """One sample of what `stage` takes."""
    if stage == 1:
        return np.zeros((1, manifest.input.height, manifest.input.width, 3), dtype=np.uint8)
    before = manifest.exits[stage - 2]
    return np.zeros((1, *(before.feature_shape or ())), dtype=before.feature_type)
