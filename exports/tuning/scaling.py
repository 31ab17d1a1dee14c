"""Fitting temperatures and ensemble weights to a calibration table; no model is run."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from exports.bundle.policy import Floats, Scaling, running_ensemble
from exports.bundle.reader import Table

NEWTON_STEPS = 20
MAX_HALVINGS = 10
TERNARY_STEPS = 60
MIN_WEIGHT = 0.02


def fit_temperature(logits: Floats, labels: NDArray[np.int64]) -> float:
    """The T > 0 that minimises the negative log-likelihood of softmax(logits / T).

    logits [N, C], labels [N]. Guo et al. 2017, "On Calibration of Modern Neural Networks". The loss
    is convex in 1/T, so a ternary search over [1/20, 20] finds its minimum.
    """
    values = logits.astype(np.float64)
    rows = np.arange(len(labels))

    def loss(beta: float) -> float:
        scaled = values * beta
        peak = scaled.max(axis=1)
        log_sum = peak + np.log(np.exp(scaled - peak[:, None]).sum(axis=1))
        return float((log_sum - scaled[rows, labels]).mean())

    low, high = 0.05, 20.0
    for _ in range(TERNARY_STEPS):
        left, right = low + (high - low) / 3, high - (high - low) / 3
        if loss(left) <= loss(right):
            high = right
        else:
            low = left
    return round(2.0 / (low + high), 4)


def fit_weights(logits: Floats, labels: NDArray[np.int64]) -> tuple[float, ...]:
    """The exits' weights in the ensemble. They minimise the negative log-likelihood of
    softmax(sum_k w_k logits_k), are each at least MIN_WEIGHT of the largest, and are scaled to sum to 1.

    logits [K, N, C], labels [N]. Newton's method starts from equal weights, which the paper's ensemble
    has. The loss is convex in w. A step that does not lower the loss is halved.
    """
    values = logits.astype(np.float64)
    rows, exits = np.arange(len(labels)), len(values)

    def loss_and_probabilities(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mean = np.tensordot(w, values, 1)
        mean -= mean.max(axis=1, keepdims=True)
        log_p = mean - np.log(np.exp(mean).sum(axis=1, keepdims=True))
        return float(-log_p[rows, labels].mean()), np.exp(log_p)

    weights = np.full(exits, 1.0 / exits)
    loss, p = loss_and_probabilities(weights)
    for _ in range(NEWTON_STEPS):
        means = (p * values).sum(axis=2)
        gradient = (means - values[:, rows, labels]).mean(axis=1)
        products = (p * values).reshape(exits, -1) @ values.reshape(exits, -1).T
        hessian = (products - means @ means.T) / len(labels)
        step = np.linalg.solve(hessian + 1e-9 * np.eye(exits), gradient)
        for _ in range(MAX_HALVINGS):
            trial = weights - step
            trial = np.maximum(trial, MIN_WEIGHT * max(trial.max(), 1e-6))
            new_loss, new_p = loss_and_probabilities(trial)
            if new_loss < loss:
                break
            step /= 2
        else:
            break
        weights, loss, p = trial, new_loss, new_p
    return tuple(round(float(w), 4) for w in weights / weights.sum())


def fit_scaling(table: Table) -> Scaling:
    """Fit the ensemble's weights, and a temperature for every exit and running ensemble."""
    exits = len(table.logits)
    weights = fit_weights(table.logits, table.labels)
    ensembles = [running_ensemble(list(table.logits), k, weights) for k in range(1, exits + 1)]
    return Scaling(
        temperatures=tuple(fit_temperature(logits, table.labels) for logits in table.logits),
        running_temperatures=tuple(fit_temperature(mean, table.labels) for mean in ensembles),
        weights=weights,
    )


def full_depth_accuracy(table: Table, scaling: Scaling) -> float:
    """The better accuracy of the last exit and of the ensemble of all, as a share."""
    exits = len(table.logits)
    ensemble = running_ensemble(list(table.logits), exits, scaling.weights)
    return max(_accuracy(table.logits[-1], table.labels), _accuracy(ensemble, table.labels))


def _accuracy(logits: Floats, labels: NDArray[np.int64]) -> float:
    return float((logits.argmax(axis=-1) == labels).mean())
