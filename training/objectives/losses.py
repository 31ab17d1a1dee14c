"""The objectives as pure functions of logits.

Notation: s_k are the student's logits at exit k, t_k the multi-exit teacher's, t a teacher's last
ones; y the labels; p_T(z) = softmax(z / T). Every function takes lists of logits [N, C], one per
exit, and labels [N], and returns a scalar. Samples are averaged, exits summed with weights w_k, all 1
unless given. CE smooths the labels by `smoothing`, as Szegedy et al. 2016, section 7.

The public text of "Multiple-Stage Knowledge Distillation" (Xu et al. 2022, doi 10.3390/app12199453)
has no formulas; MSKD and OtO follow its prose and Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy as ce
from torch.nn.functional import kl_div, log_softmax


def soft_target(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(p_T(teacher) || p_T(student)), summed over classes, averaged over samples.

    Hinton et al. 2015, section 2: the factor T^2 makes the gradient's size independent of T.
    """
    divergence = kl_div(
        log_softmax(student / temperature, dim=1),
        log_softmax(teacher / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2


def cross_entropy(
    student: Sequence[Tensor],
    labels: Tensor,
    weights: Sequence[float] | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """sum_k w_k CE(y, s_k)."""
    terms = [ce(logits, labels, label_smoothing=smoothing) for logits in student]
    return _over_exits(terms, weights)


def kd(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    temperature: float,
    alpha: float,
    smoothing: float = 0.0,
) -> Tensor:
    """(1 - alpha) CE(y, s) + alpha T^2 KL(p_T(t) || p_T(s)) for one exit (Hinton et al. 2015)."""
    soft = soft_target(student, teacher, temperature)
    return (1 - alpha) * ce(student, labels, label_smoothing=smoothing) + alpha * soft


def self_distillation(
    student: Sequence[Tensor],
    labels: Tensor,
    temperature: float,
    alpha: float,
    weights: Sequence[float] | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """w_K CE(y, s_K) + sum_{k<K} w_k kd(s_k, s_K): the deepest exit teaches the others.

    The teaching logits get no gradient. Zhang et al. 2019, "Be Your Own Teacher",
    equations 2 and 3, without their term on features.
    """
    *early, last = student
    terms = [kd(s, last.detach(), labels, temperature, alpha, smoothing) for s in early]
    return _over_exits([*terms, ce(last, labels, label_smoothing=smoothing)], weights)


def mskd(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    labels: Tensor,
    temperature: float,
    alpha: float,
    weights: Sequence[float] | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """sum_k w_k kd(s_k, t): the teacher's last output teaches every exit of the student."""
    alike = [teacher[-1]] * len(student)
    return oto(student, alike, labels, temperature, alpha, weights, smoothing)


def oto(
    student: Sequence[Tensor],
    teacher: Sequence[Tensor],
    labels: Tensor,
    temperature: float,
    alpha: float,
    weights: Sequence[float] | None = None,
    smoothing: float = 0.0,
) -> Tensor:
    """sum_k w_k kd(s_k, t_k): exit k of the teacher teaches exit k of the student.

    Raises ValueError if teacher and student differ in their number of exits.
    """
    terms = [
        kd(s, t, labels, temperature, alpha, smoothing)
        for s, t in zip(student, teacher, strict=True)
    ]
    return _over_exits(terms, weights)


def _over_exits(terms: Sequence[Tensor], weights: Sequence[float] | None) -> Tensor:
    if weights is None:
        return torch.stack(list(terms)).sum()
    return torch.stack([w * term for w, term in zip(weights, terms, strict=True)]).sum()
