"""Drift of the embedded bundle: how soon it is reported, and that clean traffic is not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.harness.corruptions import Images, blur, contrast, jpeg
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from exports.bundle.reader import Table, load_table, read_manifest, read_policy
from exports.bundle.resolve import CIFAR100
from exports.tuning.simulation import simulate
from serving.drift.reference import Answers, Reference
from serving.drift.state import DriftState
from serving.inference.engine import Engine
from serving.models.registry import open_engine

CLEAN = 2_000


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(CIFAR100)


@pytest.fixture(scope="module")
def policy(manifest: Manifest) -> Policy:
    return read_policy(CIFAR100, manifest)


@pytest.fixture(scope="module")
def table(manifest: Manifest) -> Table:
    return load_table(CIFAR100, manifest)


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_engine(CIFAR100, threads=1, provider="cpu").engine


@pytest.fixture(scope="module")
def shuffled(cifar_test: tuple[Images, NDArray[np.int64]]) -> Images:
    """Test images of CIFAR-100, in an order of their own."""
    images, _ = cifar_test
    return images[np.random.default_rng(0).permutation(len(images))]


def answers_of(engine: Engine, policy: Policy, images: Images) -> Answers:
    """What `engine` answers to `images`."""
    parts = np.array_split(images, max(1, len(images) // 100))
    return Answers.of_predictions([p for part in parts for p in engine.classify(part, policy)])


def first_alarm(state: DriftState, answers: Answers, step: int = 10) -> int:
    """After how many of `answers` a signal drifts."""
    for start in range(0, len(answers.exits), step):
        end = min(start + step, len(answers.exits))
        if state.update(answers.take(np.arange(start, end))):
            return start + step
    pytest.fail(f"no drift was reported within {len(answers.exits)} answers")


@pytest.mark.parametrize(("shift", "within"), [(jpeg, 300), (contrast, 1000), (blur, 1000)])
def test_changed_images_are_reported(
    shift: Callable[[Images], Images],
    within: int,
    shuffled: Images,
    engine: Engine,
    policy: Policy,
    table: Table,
    manifest: Manifest,
) -> None:
    state = DriftState(Reference(table, policy, manifest), seed=0)
    changed = answers_of(engine, policy, shift(shuffled[CLEAN : CLEAN + within]))
    first_alarm(state, changed)
    assert "differ from the calibration table" in state.status().sentence


def test_clean_images_are_not_reported(
    shuffled: Images, engine: Engine, policy: Policy, table: Table, manifest: Manifest
) -> None:
    state = DriftState(Reference(table, policy, manifest), seed=0)
    assert state.update(answers_of(engine, policy, shuffled[:CLEAN])) == []
    assert "no drift" in state.status().sentence


def test_a_month_of_clean_traffic_is_silent(
    policy: Policy, table: Table, manifest: Manifest
) -> None:
    """An answer every six seconds. The server's table is a sample of the same distribution as they are."""
    rng = np.random.default_rng(0)
    samples = len(table.labels)
    sample = table.take(rng.integers(0, samples, samples))
    state = DriftState(Reference(sample, policy, manifest), seed=0)
    everything = Reference(table, policy, manifest).answers
    for _ in range(43):
        assert state.update(everything.take(rng.integers(0, samples, 10_000))) == []


def test_less_certain_answers_are_reported(
    policy: Policy, table: Table, manifest: Manifest
) -> None:
    """Logits that are a quarter smaller: a shift that needs no images."""
    rng = np.random.default_rng(0)
    state = DriftState(Reference(table, policy, manifest), seed=0)
    flatter = Table(table.logits * np.float32(0.75), table.labels)
    changed = Reference(flatter, policy, manifest).answers
    before, after = simulate(policy, table.logits, manifest.scaling), changed
    assert (after.exits + 1).mean() > before.exits.mean()
    first_alarm(state, changed.take(rng.permutation(len(table.labels))[:1000]))


def test_an_alarm_ends_after_a_time_without_another(
    policy: Policy, table: Table, manifest: Manifest
) -> None:
    rng = np.random.default_rng(0)
    state = DriftState(Reference(table, policy, manifest), seed=0)
    usual = Reference(table, policy, manifest).answers
    flatter = Table(table.logits * np.float32(0.75), table.labels)
    changed = Reference(flatter, policy, manifest).answers
    order = rng.permutation(len(table.labels))
    assert "confidence" in state.update(changed.take(order[:1000]))
    assert any(status.drifting for status in state.status().signals)
    for start in range(0, 5_000, 500):
        state.update(usual.take(order[start : start + 500]))
    assert not any(status.drifting for status in state.status().signals)
