"""A certificate counts as verified if the bundle's own table leads to it, choice included."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exports.bundle.certificate import Certificate
from exports.bundle.errors import BundleError
from exports.bundle.manifest import Manifest
from exports.bundle.policy import Policy
from exports.bundle.reader import read_manifest, read_policy
from exports.bundle.writing import write_policy
from exports.tuning.goal import Goal, PrecisionGoal
from exports.tuning.preview import PolicyPreview
from exports.tuning.select import choose
from exports.tuning.selective.choose import choose_precise
from serving.models.certificates import CertificateError, CertificateVerifier
from serving.settings import Settings
from tests.commands import call
from tests.exports.bundles import INT8
from tests.serving.conftest import Client, running
from tests.serving.requests import assert_error, metrics

MODEL = "/v1/models/cifar100-oto"
GAUGE = 'offramp_certificate_verified{model="cifar100-oto"}'


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return read_manifest(INT8)


@pytest.fixture(scope="module")
def policy(manifest: Manifest) -> Policy:
    """The certified policy that tuning finds on its table."""
    costs = [entry.macs for entry in manifest.exits]
    return choose(preview(manifest).tuning_data, costs, Goal(confidence=0.95)).policy


@pytest.fixture(scope="module")
def verifier() -> CertificateVerifier:
    return CertificateVerifier()


def preview(manifest: Manifest) -> PolicyPreview:
    return PolicyPreview(INT8, manifest)


def changed(policy: Policy, **changes: Any) -> Policy:
    """`policy` with another certificate."""
    assert policy.certificate is not None
    certificate = Certificate.model_validate(policy.certificate.model_dump() | changes)
    return policy.model_copy(update={"certificate": certificate})


def test_what_the_table_leads_to_is_verified(
    verifier: CertificateVerifier, manifest: Manifest, policy: Policy
) -> None:
    assert verifier.verify(policy, manifest, preview(manifest)) is True
    bare = policy.model_copy(update={"certificate": None})
    assert verifier.verify(bare, manifest, preview(manifest)) is None


def test_a_table_is_read_once_for_a_policy(
    verifier: CertificateVerifier, manifest: Manifest, policy: Policy
) -> None:
    verifier.verify(policy, manifest, preview(manifest))
    gone = PolicyPreview(Path("nowhere"), manifest)
    assert verifier.verify(policy, manifest, gone) is True
    # Where labels are withheld is no part of the choice.
    rejecting = policy.model_copy(update={"reject_below": 0.5})
    assert verifier.verify(rejecting, manifest, gone) is True
    with pytest.raises(BundleError):
        verifier.verify(changed(policy, split_sha256="0" * 64), manifest, gone)


def test_a_certificate_of_other_samples_is_not_verified(
    verifier: CertificateVerifier, manifest: Manifest, policy: Policy
) -> None:
    other = changed(policy, split_sha256="0" * 64)
    assert verifier.verify(other, manifest, preview(manifest)) is False


def test_the_same_policy_is_not_verified_by_another_division_of_the_table(
    verifier: CertificateVerifier, manifest: Manifest, policy: Policy
) -> None:
    assert verifier.verify(policy, manifest, preview(manifest)) is True
    entry = manifest.calibration
    third = entry.model_copy(update={"chosen_on": entry.samples // 3})
    divided = manifest.model_copy(update={"calibration": third})
    assert verifier.verify(policy, divided, preview(divided)) is False


def test_a_policy_that_was_chosen_otherwise_is_not_verified(
    verifier: CertificateVerifier, manifest: Manifest, policy: Policy
) -> None:
    # As if the last exit took nearly all of the time.
    by_time = choose(
        preview(manifest).tuning_data, (1, 1.1, 1.2, 9.0), Goal(confidence=0.95)
    ).policy
    assert by_time.thresholds != policy.thresholds
    assert verifier.verify(by_time, manifest, preview(manifest)) is False


@pytest.mark.parametrize("change", [{"bound": 0.01}, {"samples": 2499}, {"confidence": 0.9}])
def test_a_certificate_that_does_not_follow_is_refused(
    verifier: CertificateVerifier, manifest: Manifest, policy: Policy, change: dict[str, Any]
) -> None:
    with pytest.raises(CertificateError, match="does not follow"):
        verifier.verify(changed(policy, **change), manifest, preview(manifest))


@pytest.fixture(scope="module")
def precise(manifest: Manifest) -> Policy:
    """A policy with a certified precision."""
    costs = [entry.macs for entry in manifest.exits]
    data = preview(manifest).tuning_data
    goals = Goal(confidence=0.95), PrecisionGoal(0.85, 0.95)
    return choose_precise(data, costs, *goals).policy


def test_a_certified_precision_is_verified_if_the_table_leads_to_its_limit(
    verifier: CertificateVerifier, manifest: Manifest, precise: Policy
) -> None:
    assert precise.precision_certificate is not None
    assert verifier.verify(precise, manifest, preview(manifest)) is True

    def changed(reject_below: float, **fields: Any) -> Policy:
        certificate = precise.precision_certificate
        assert certificate is not None
        fields["reject_below"] = reject_below
        return precise.model_copy(
            update={
                "reject_below": reject_below,
                "precision_certificate": certificate.model_copy(update=fields),
            }
        )

    assert precise.reject_below is not None
    other = changed(precise.reject_below, split_sha256="0" * 64)
    assert verifier.verify(other, manifest, preview(manifest)) is False
    with pytest.raises(CertificateError, match="does not follow"):
        verifier.verify(changed(0.01), manifest, preview(manifest))


@pytest.fixture
def bundle(tmp_path: Path, policy: Policy) -> Path:
    """A copy of the bundle with four exits with `policy`."""
    path = Path(shutil.copytree(INT8, tmp_path / "copy"))
    write_policy(path, policy)
    return path


@pytest.fixture
def client(bundle: Path) -> Iterator[Client]:
    with running(Settings(bundles=(bundle,), workers=1)) as client:
        yield client


def test_the_server_says_what_it_has_verified(client: Client, policy: Policy) -> None:
    assert client.get(MODEL).json()["certificate_verified"] is True
    assert client.get(f"{MODEL}/policy").json()["certificate_verified"] is True
    assert f"{GAUGE} 1.0" in metrics(client)

    other = json.loads(changed(policy, split_sha256="0" * 64).model_dump_json())
    assert client.put(f"{MODEL}/policy", json=other).json()["certificate_verified"] is False
    assert client.get(MODEL).json()["certificate_verified"] is False
    assert f"{GAUGE} 0.0" in metrics(client)

    bare = client.put(f"{MODEL}/policy", json={**other, "certificate": None}).json()
    assert bare["certificate_verified"] is None
    assert GAUGE not in metrics(client)


def test_a_contradicted_certificate_is_refused_wherever_it_comes_in(
    client: Client, bundle: Path, policy: Policy
) -> None:
    contradicted = changed(policy, bound=0.01)
    body = json.loads(contradicted.model_dump_json())
    assert_error(
        client.put(f"{MODEL}/policy", json=body), 400, "invalid_request", "does not follow"
    )
    write_policy(bundle, contradicted)
    assert_error(client.put(MODEL), 409, "bad_bundle", "policy.json: A certificate does not")
    assert client.get(MODEL).json()["policy"] == json.loads(policy.model_dump_json())
    done = call("inspect", bundle)
    assert done.code == 2
    assert "does not follow" in done.err


def test_inspect_says_whether_a_certificate_is_verified(bundle: Path, policy: Policy) -> None:
    assert json.loads(call("inspect", bundle, "--json").out)["certificate_verified"] is True
    assert "certificate verified. With probability 95 %" in " ".join(
        call("inspect", bundle).out.split()
    )
    write_policy(bundle, changed(policy, split_sha256="0" * 64))
    assert json.loads(call("inspect", bundle, "--json").out)["certificate_verified"] is False
    assert "certificate not verified here. With" in " ".join(call("inspect", bundle).out.split())
    assert read_policy(bundle, read_manifest(bundle)).certificate is not None
