"""Temperatures and weights maximise the likelihood of the labels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp

from exports.bundle.policy import running_ensemble, softmax
from exports.bundle.reader import Table
from exports.tuning.scaling import (
    agreement_weights,
    fit_agreement,
    fit_scaling,
    fit_temperature,
    fit_weights,
)


def table(count: int = 3000, seed: int = 0) -> Table:
    """Three exits, each with a clearer signal than the one before."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    signal = np.eye(10)[labels]
    logits = [signal * s + rng.normal(size=(count, 10)) for s in (1.5, 2.5, 3.5)]
    return Table(np.stack(logits).astype(np.float32), labels)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(temperature: float) -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=3, size=(20000, 6)).astype(np.float32)
    probabilities = softmax(logits / np.float32(temperature))
    labels = (probabilities.cumsum(1) > rng.random((20000, 1))).argmax(1)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)


def test_scaling_has_one_weight_and_two_temperatures_per_exit() -> None:
    scaling = fit_scaling(table())
    assert len(scaling.temperatures) == len(scaling.running_temperatures) == 3
    assert sum(scaling.weights) == pytest.approx(1, abs=1e-3)
    assert scaling.running_temperatures[0] == scaling.temperatures[0]


def test_the_weights_that_made_the_labels_are_found() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=2, size=(3, 20000, 6)).astype(np.float32)
    probabilities = softmax(np.tensordot(np.float32([0.2, 0.5, 0.9]), logits, 1))
    labels = (probabilities.cumsum(1) > rng.random((20000, 1))).argmax(1)
    assert fit_weights(logits, labels) == pytest.approx((0.125, 0.3125, 0.5625), abs=0.02)


def test_a_misleading_exit_has_the_smallest_allowed_weight() -> None:
    data = table()
    misleading = Table(np.concatenate([-data.logits[:1], data.logits]), data.labels)
    weights = fit_weights(misleading.logits, data.labels)
    assert min(weights) == weights[0] > 0
    assert weights[0] == pytest.approx(0.02 * max(weights), abs=1e-3)


@pytest.mark.parametrize("seed", range(12))
def test_the_weights_are_the_optimum_within_their_limits(seed: int) -> None:
    """Against scipy's constrained solver, on exits of which some have no signal, or a wrong one."""
    random = np.random.default_rng(seed)
    exits, count = int(random.integers(2, 6)), int(random.choice([60, 300]))
    labels = random.integers(0, 5, count)
    shared = random.normal(size=(count, 5))
    logits = np.stack(
        [
            np.eye(5)[labels] * random.uniform(-0.5, 3)
            + shared * random.uniform(0, 1)
            + random.normal(size=(count, 5)) * random.uniform(0.3, 2)
            for _ in range(exits)
        ]
    ).astype(np.float32)

    def loss(weights: np.ndarray) -> float:
        mixed = np.tensordot(weights, logits.astype(np.float64), 1)
        return float((logsumexp(mixed, axis=1) - mixed[np.arange(count), labels]).mean())

    limits = [
        {"type": "ineq", "fun": lambda w, a=a, b=b: w[a] - 0.02 * w[b]}
        for a, b in itertools.permutations(range(exits), 2)
    ]
    start = np.full(exits, 1 / exits)
    best = minimize(loss, start, method="SLSQP", constraints=limits, options={"ftol": 1e-12})
    found = np.array(fit_weights(logits, labels))
    scaled = minimize_scalar(lambda scale: loss(scale * found), (0.1, 5.0))
    assert scaled.fun <= best.fun + 2e-4


def test_fitted_weights_are_at_least_as_likely_as_equal_ones() -> None:
    data = table()

    def loss(weights: tuple[float, ...]) -> float:
        mixed = np.tensordot(np.float32(weights), data.logits, 1)
        temperature = fit_temperature(mixed, data.labels)
        p = softmax(mixed / np.float32(temperature))
        return float(-np.log(p[np.arange(len(data.labels)), data.labels]).mean())

    assert loss(fit_weights(data.logits, data.labels)) <= loss((1 / 3,) * 3) + 1e-6


def test_without_labels_every_network_counts_as_much_whatever_the_scale_of_its_logits() -> None:
    rng = np.random.default_rng(2)
    one, two = rng.normal(size=(2, 500, 6)).astype(np.float32)
    shifted = 50 * two + rng.normal(size=(500, 1)).astype(np.float32)
    weights = agreement_weights(np.stack([one, shifted]), "ensemble")
    assert weights == pytest.approx((50 / 51, 1 / 51), abs=2e-3)
    answers = running_ensemble([one, shifted], 2, weights).argmax(axis=1)
    assert (answers == (one / one.std() + two / two.std()).argmax(axis=1)).mean() > 0.97
    constant = agreement_weights(np.stack([one, np.ones_like(one)]), "ensemble")
    assert min(constant) > 0


def test_only_the_reference_itself_has_no_fitted_temperature() -> None:
    logits = table().logits
    last = fit_agreement(Table(logits, logits[-1].argmax(axis=1)))
    assert last.temperatures[-1] == last.running_temperatures[-1] == 1
    assert running_ensemble(list(logits), 3, last.weights).argmax(axis=1) == pytest.approx(
        logits[-1].argmax(axis=1)
    )
    weights = agreement_weights(logits, "ensemble")
    answers = running_ensemble(list(logits), 3, weights).argmax(axis=1)
    ensemble = fit_agreement(Table(logits, answers), "ensemble")
    assert ensemble.weights == weights
    assert ensemble.running_temperatures[-1] == 1
    assert ensemble.temperatures[-1] != 1
