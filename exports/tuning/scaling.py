"""Fitting temperatures and ensemble weights to a calibration table; no model is run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exports.bundle.certificate import Reference
from exports.bundle.policy import Floats, Scaling, running_ensemble
from exports.bundle.reader import Table

NEWTON_STEPS = 30
NEWTON_TOLERANCE = 1e-10  # of the loss that a further step would gain, twice
MAX_HALVINGS = 30
MAX_ACTIVE_SETS = 30
GRADIENT_TOLERANCE = 1e-6
TERNARY_STEPS = 60
MIN_WEIGHT = 0.02
# Weights must be positive; this one changes no answer but between two classes that are as likely.
NEGLIGIBLE_WEIGHT = 1e-4
# Of the largest spread: a network whose logits hardly differ does not get all the weight.
MIN_SPREAD = 1e-3


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

    logits [K, N, C], labels [N]. The loss is convex in w, and so are the limits. Newton's method starts
    from equal weights, which the paper's ensemble has. An active set holds the weights at their limit
    (Nocedal and Wright 2006, "Numerical Optimization", section 16.5): a weight below it is put there, and
    let go if the loss then falls.
    """
    likelihood = _Likelihood(logits.astype(np.float64), labels)
    exits = len(logits)
    weights, held = np.full(exits, 1.0 / exits), frozenset[int]()
    for _ in range(MAX_ACTIVE_SETS):
        top = int(weights.argmax())
        basis = np.eye(exits)
        basis[sorted(held), top] = MIN_WEIGHT
        basis = np.delete(basis, sorted(held), axis=1)
        start = np.maximum(np.delete(weights, sorted(held)), 0)
        weights = basis @ _newton(likelihood, basis, start)
        largest = max(float(weights.max()), 1e-6)
        below = [k for k in range(exits) if k not in held and weights[k] < MIN_WEIGHT * largest]
        if below:
            held |= {min(below, key=lambda k: float(weights[k]))}
            continue
        gradient = likelihood.derivatives(weights)[1]
        falling = [k for k in held if gradient[k] < -GRADIENT_TOLERANCE]
        if falling:
            held -= {min(falling, key=lambda k: float(gradient[k]))}
        elif int(weights.argmax()) == top:
            break
    weights = np.maximum(weights, MIN_WEIGHT * max(float(weights.max()), 1e-6))
    return tuple(round(float(w), 4) for w in weights / weights.sum())


@dataclass(frozen=True)
class _Likelihood:
    """The mean negative log-likelihood of labels [N] as a function of the exits' weights [K].

    `values` holds the logits, float64 [K, N, C].
    """

    values: NDArray[np.float64]
    labels: NDArray[np.int64]

    def log_probabilities(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """log softmax of the weighted logits, [N, C]."""
        mean = np.tensordot(weights, self.values, 1)
        mean -= mean.max(axis=1, keepdims=True)
        log_p: NDArray[np.float64] = mean - np.log(np.exp(mean).sum(axis=1, keepdims=True))
        return log_p

    def loss(self, weights: NDArray[np.float64]) -> float:
        """The loss alone."""
        log_p = self.log_probabilities(weights)
        return float(-log_p[np.arange(len(self.labels)), self.labels].mean())

    def derivatives(
        self, weights: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Loss, gradient [K] and Hessian [K, K]."""
        log_p = self.log_probabilities(weights)
        rows, exits = np.arange(len(self.labels)), len(self.values)
        weighted = np.exp(log_p) * self.values
        means = weighted.sum(axis=2)
        gradient = (means - self.values[:, rows, self.labels]).mean(axis=1)
        products = weighted.reshape(exits, -1) @ self.values.reshape(exits, -1).T
        hessian = (products - means @ means.T) / len(rows)
        return float(-log_p[rows, self.labels].mean()), gradient, hessian


def _newton(
    likelihood: _Likelihood, basis: NDArray[np.float64], start: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The v that minimises the loss of the weights `basis` @ v. A step that does not lower it enough is
    halved (Armijo 1966)."""
    point = start
    for _ in range(NEWTON_STEPS):
        loss, gradient, hessian = likelihood.derivatives(basis @ point)
        slope = basis.T @ gradient
        curvature = basis.T @ hessian @ basis + 1e-9 * np.eye(len(point))
        step = np.linalg.solve(curvature, slope)
        decrease = float(slope @ step)
        if decrease < NEWTON_TOLERANCE:
            break
        for _ in range(MAX_HALVINGS):
            if likelihood.loss(basis @ (point - step)) <= loss - 1e-4 * decrease:
                break
            step, decrease = step / 2, decrease / 2
        else:
            break
        point = point - step
    return point


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


def agreement_weights(logits: Floats, reference: Reference) -> tuple[float, ...]:
    """Weights of the ensemble that need no labels, for logits [K, N, C].

    Its answers are the last exit's, or those of all exits, of which each counts as much as any other: its
    weight is the inverse of its spread, the root mean square of its logits around their mean over the
    classes. Logits of networks of different makers are of different scales.
    """
    exits = len(logits)
    if reference == "last":
        others = (NEGLIGIBLE_WEIGHT,) * (exits - 1)
        return (*others, round(1 - sum(others), 4))
    centred = logits.astype(np.float64) - logits.mean(axis=2, keepdims=True)
    spreads = np.sqrt(np.square(centred).mean(axis=(1, 2)))
    inverse = 1 / np.maximum(spreads, max(MIN_SPREAD * float(spreads.max()), 1e-12))
    return tuple(max(round(float(w), 4), NEGLIGIBLE_WEIGHT) for w in inverse / inverse.sum())


def answers_as_last(weights: Sequence[float]) -> bool:
    """Whether the ensemble with these `weights` answers as the last of several exits, as with
    `agreement_weights` of the reference "last"."""
    return len(weights) > 1 and max(weights[:-1]) <= NEGLIGIBLE_WEIGHT


def fit_agreement(table: Table, reference: Reference = "last") -> Scaling:
    """Temperatures for a table without labels, whose `labels` are the answers of the ensemble with
    `agreement_weights`.

    The confidence of an exit becomes the probability of agreeing with it. The ensemble of all exits keeps
    its own temperature, since agreement with itself says nothing, and so does the last exit where that is
    the reference.
    """
    exits = len(table.logits)
    weights = agreement_weights(table.logits, reference)
    earlier = range(1, exits)
    ensembles = [running_ensemble(list(table.logits), k, weights) for k in earlier]
    single = [fit_temperature(logits, table.labels) for logits in table.logits]
    if reference == "last":
        single[-1] = 1.0
    return Scaling(
        temperatures=tuple(single),
        running_temperatures=(*(fit_temperature(mean, table.labels) for mean in ensembles), 1.0),
        weights=weights,
    )
