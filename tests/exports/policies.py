"""Hypothesis strategies for policies, tables of logits and scalings, and a certificate."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from exports.bundle.certificate import Certificate, PrecisionCertificate
from exports.bundle.policy import Combine, Measure, Mode, Policy, Scaling

EXITS, CLASSES = 4, 5
MODES: tuple[Mode, ...] = ("early_exit", "ensemble", "exit")
MEASURES: tuple[Measure, ...] = ("max_prob", "margin", "entropy")
COMBINES: tuple[Combine, ...] = ("running", "single")

finite = st.floats(-30, 30, width=32)
tables = st.integers(1, 8).flatmap(
    lambda count: arrays(np.float32, (EXITS, count, CLASSES), elements=finite)
)
scalings = st.builds(
    Scaling,
    temperatures=st.tuples(*[st.floats(0.3, 5)] * EXITS),
    running_temperatures=st.tuples(*[st.floats(0.3, 5)] * EXITS),
    weights=st.tuples(*[st.floats(0.1, 2)] * EXITS),
)
policies = st.builds(
    Policy,
    mode=st.sampled_from(MODES),
    measure=st.sampled_from(MEASURES),
    combine=st.sampled_from(COMBINES),
    thresholds=st.tuples(*[st.floats(0, 1.5)] * (EXITS - 1)),
    max_exit=st.integers(1, EXITS),
)

CERTIFICATE = Certificate(
    method="exact-trinomial",
    permitted_drop=0.5,
    confidence=0.95,
    bound=0.43,
    chosen_on=2500,
    samples=2500,
    split_sha256="0" * 64,
    target="labels",
)
PRECISION_CERTIFICATE = PrecisionCertificate(
    min_precision=0.95,
    reject_below=0.75,
    confidence=0.95,
    bound=0.953,
    answered=1220,
    chosen_on=2500,
    samples=2500,
    split_sha256="0" * 64,
)
