"""One stage as a deployment: it runs the calls of all requests that reach it in batches."""

from __future__ import annotations

import asyncio
from collections import defaultdict
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
from exports.bundle.reader import Bundle, load_bundle
from exports.bundle.resolve import resolve_bundle
from offramp.lru import LruDict
from serving.inference.sessions import open_stage
from serving.ray.arguments import read_model_config
from serving.ray.features import MAX_INLINE_BYTES, Features, count, gather, is_array, whole
from serving.ray.policy_store import key_of
from serving.scheduling.costs import MAX_BATCH
from serving.settings import Settings

# Features that do not arrive within this time count as lost, so that the calls behind them continue.
FEATURES_TIMEOUT_S = 10.0
# While a bundle is rolled out, calls for the old and for the new one arrive.
SPARE_BUNDLES = 1


@dataclass(frozen=True)
class Call:
    """Samples for a stage of the bundle `source`, as `resolve_bundle` takes it, with the key `bundle`.
    `features` are its input, which may be images."""

    bundle: str
    source: str
    features: Features


@dataclass(frozen=True)
class Answer:
    """Features of the samples, None if no stage takes them; logits float32 [n, classes]; and the
    onnxruntime provider that computed them."""

    features: Features | None
    logits: Floats
    provider: str


class LostFeatures:
    """Returned instead of an Answer if the process that held the features is gone."""


@dataclass(frozen=True)
class _OpenStage:
    session: Any
    input: str
    provider: str


class Stage:
    """Stage `number`, from 1, of any bundle it is called for. Opens no other stage."""

    def __init__(self, number: int, settings: Settings) -> None:
        self._number = number
        self._settings = settings
        self._open_stages: LruDict[str, _OpenStage] = LruDict(1 + SPARE_BUNDLES)

    async def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Open the configured bundles before the first call."""
        bundles = read_model_config(user_config).bundles
        self._open_stages.capacity = len(bundles) + SPARE_BUNDLES
        for source in bundles:
            await asyncio.to_thread(self._open_configured, source)

    async def run(self, call: Call) -> Answer | LostFeatures:
        """Run the stage on the samples of `call`, in one batch with other waiting calls."""
        answer: Answer | LostFeatures = await self._run_batch(call)
        return answer

    # A batch starts as soon as the previous one has ended, with the calls that arrived meanwhile.
    @serve.batch(  # type: ignore[untyped-decorator]
        max_batch_size=MAX_BATCH,
        batch_wait_timeout_s=0,
        batch_size_fn=lambda calls: sum(count(call.features) for call in calls),
    )
    async def _run_batch(self, calls: list[Call]) -> list[Answer | LostFeatures]:
        arrays = await asyncio.gather(*(_fetch(call.features) for call in calls))
        answers: list[Answer | LostFeatures] = [LostFeatures()] * len(calls)
        groups: dict[tuple[str, str], list[int]] = defaultdict(list)
        for row, (call, array) in enumerate(zip(calls, arrays, strict=True)):
            if array is not None:
                groups[call.source, call.bundle].append(row)
        for (source, bundle), rows in groups.items():
            inputs = [array for row in rows if (array := arrays[row]) is not None]
            computed = await asyncio.to_thread(self._compute, source, bundle, inputs)
            for row, answer in zip(rows, computed, strict=True):
                answers[row] = answer
        return answers

    def _compute(self, source: str, bundle: str, parts: Sequence[NDArray[Any]]) -> list[Answer]:
        """Run the stage once on `parts`, and split the result again."""
        stage = self._open_stages.get(bundle) or self._open_called(source, bundle)
        inputs = parts[0] if len(parts) == 1 else np.concatenate(parts)
        outputs = stage.session.run(None, {stage.input: inputs})
        answers = []
        ends = np.cumsum([len(part) for part in parts])
        for part, end in zip(parts, ends.tolist(), strict=True):
            rows = slice(end - len(part), end)
            features = _pass_on(outputs[0][rows]) if len(outputs) == 2 else None
            answers.append(Answer(features, outputs[-1][rows], stage.provider))
        return answers

    def _open_configured(self, source: str) -> None:
        """Open the stage of the bundle `source`, unless that bundle has fewer stages."""
        bundle = load_bundle(resolve_bundle(source))
        if self._number <= len(bundle.stages):
            self._open(bundle, key_of(bundle.manifest).bundle)

    def _open_called(self, source: str, key: str) -> _OpenStage:
        """The stage of the bundle `source`; raises BundleError if its key is not `key`."""
        bundle = load_bundle(resolve_bundle(source))
        if key_of(bundle.manifest).bundle != key:
            raise BundleError(f"{source} is no longer the bundle that the request started with.")
        return self._open(bundle, key)

    def _open(self, bundle: Bundle, key: str) -> _OpenStage:
        stage = self._open_stages.get(key)
        if stage is None:
            settings = self._settings
            session, provider = open_stage(
                bundle, self._number, settings.threads, settings.provider, settings.pool
            )
            name = session.get_inputs()[0].name
            session.run(None, {name: _blank(bundle.manifest, self._number)})
            stage = _OpenStage(session, name, provider)
            self._open_stages.put(key, stage)
        return stage


async def _fetch(features: Features) -> NDArray[Any] | None:
    """One array of `features`, mapped from Ray's shared memory where possible; None if it is lost."""
    try:
        async with asyncio.timeout(FEATURES_TIMEOUT_S):
            arrays = [
                piece.source if is_array(piece.source) else await piece.source for piece in features
            ]
    except (ObjectLostError, TimeoutError):
        return None
    return gather(features, arrays)


def _pass_on(features: NDArray[Any]) -> Features:
    """`features` for the next stage: by value if small, else by reference to Ray's shared memory."""
    copied = np.ascontiguousarray(features)
    return whole(copied if copied.nbytes < MAX_INLINE_BYTES else ray.put(copied), len(copied))


def _blank(manifest: Manifest, stage: int) -> NDArray[Any]:
    """One sample of the input of `stage`."""
    if manifest.exits[stage - 1].input == "image":
        return np.zeros((1, manifest.input.height, manifest.input.width, 3), dtype=np.uint8)
    previous = manifest.exits[stage - 2]
    return np.zeros((1, *(previous.feature_shape or ())), dtype=previous.feature_type)
