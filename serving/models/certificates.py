"""Certificates of policies, redone from the bundle's own calibration table."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from exports.bundle.errors import BundleError, TuningError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from exports.tuning.goal import Default, Goal, TuningData
from exports.tuning.preview import PolicyPreview
from exports.tuning.select import choose, may_answer_alone, verify_certificate
from exports.tuning.selective.certificate import verify_precision
from exports.tuning.selective.choose import reproduces_precision
from offramp.lru import LruDict

MAX_KNOWN = 1024


class CertificateError(BundleError):
    """A certificate names the samples of the bundle's calibration table, but does not follow from them."""


class CertificateVerifier:
    """Verifies certificates, each combination of table and policy once. Any thread may call it."""

    def __init__(self) -> None:
        self._known: LruDict[tuple[object, ...], bool] = LruDict(MAX_KNOWN)
        self._lock = threading.Lock()

    def verify(self, policy: Policy, manifest: Manifest, table: PolicyPreview) -> bool | None:
        """Whether every certificate of `policy` is verified by `table`, that of the bundle with `manifest`;
        None if there is none.

        Takes about as long as a tuning, below a second for 5,000 samples of 100 classes, unless the answer is
        known.
        Raises CertificateError if the table contradicts a certificate, BundleError if it is damaged.
        """
        if policy.certificate is None and policy.precision_certificate is None:
            return None
        costs = tuple(entry.macs for entry in manifest.exits)
        # Only a certificate of the precision depends on `reject_below`.
        rule = policy.without_rejection if policy.precision_certificate is None else policy
        entry = manifest.calibration
        key = (entry.sha256, entry.selection_size, manifest.scaling, costs, rule)
        with self._lock:
            known = self._known.get(key)
        if known is None:
            last_alone = may_answer_alone(manifest.inputs, entry.target, manifest.scaling)
            known = _redo(rule, table, costs, Default(last_alone=last_alone))
            with self._lock:
                self._known.put(key, known)
        return known


def _redo(policy: Policy, table: PolicyPreview, costs: Sequence[float], default: Default) -> bool:
    """Whether the certificates of `policy` follow from the samples of `table` that certify, and `policy` is
    what the others choose at these `costs`, by its goals or by `default`.

    False if that cannot be checked here: a certificate is of other samples, or another choice was made,
    for example by milliseconds, by an earlier version or by hand.
    """
    try:
        data = table.tuning_data
    except TuningError:
        return False  # a table of one sample cannot be divided
    drop, precision = verify_certificate(policy, data), verify_precision(policy, data)
    if drop is False or precision is False:
        raise CertificateError(
            "A certificate does not follow from the bundle's calibration table; "
            "use the policy without it, or run `offramp tune` again."
        )
    if policy.precision_certificate is None:
        return bool(drop) and reproduces_thresholds(policy, data, costs)
    if policy.certificate is not None and not drop:
        return False
    return bool(precision) and reproduces_precision(policy, data, costs, default)


def reproduces_thresholds(policy: Policy, data: TuningData, costs: Sequence[float]) -> bool:
    """Whether the goal in the certificate of `policy` leads to its thresholds on `data` at these `costs`."""
    certificate = policy.certificate
    if certificate is None:
        return False
    goal = Goal(value=certificate.permitted_drop / 100, confidence=certificate.confidence)
    try:
        return choose(data, costs, goal).policy == policy.without_rejection
    except TuningError:
        return False
