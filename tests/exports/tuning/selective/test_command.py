"""`offramp tune --min-precision` writes the limit and its promise, keeps them, and says when it cannot."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from exports.bundle.policy import Policy
from exports.bundle.reader import load_table, read_manifest, read_policy
from exports.tuning.goal import Default, TuningData
from exports.tuning.selective.certificate import verify_precision
from exports.tuning.selective.choose import reproduces_precision
from tests.commands import CommandResult, call
from tests.exports.bundles import INT8


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the bundle with four exits."""
    return Path(shutil.copytree(INT8, tmp_path / "bundle"))


def tuned(bundle: Path, *arguments: object) -> tuple[CommandResult, dict[str, Any], Policy]:
    """The command's result, its JSON, and the policy that is written."""
    file = bundle.parent / "out.json"
    result = call("tune", bundle, "--json", file, *arguments)
    assert result.code == 0, result.err
    return result, json.loads(file.read_text()), read_policy(bundle, read_manifest(bundle))


def test_a_precision_sets_the_limit_and_reports_coverage_with_an_interval(bundle: Path) -> None:
    result, found, policy = tuned(bundle, "--min-precision", "0.9", "--budget", "100M")
    precise = found["precision"]
    assert precise["goal"] == {"min_precision": 0.9, "confidence": None}
    assert policy.reject_below == precise["reject_below"]
    assert policy.precision_certificate is None
    assert found["goal"]["kind"] == "budget"
    assert found["chosen"]["mean_macs"] <= 1e8
    assert found["source"]["cross_validated"] is True
    low, high = precise["coverage_interval"]
    assert 0.4 < low < precise["coverage"] < high < 0.7
    low, high = precise["precision_interval"]
    assert 0.88 < low < 0.9 <= precise["precision"] < high < 0.92
    words = " ".join(result.out.split())
    assert "Goal: the most accurate at 100 M MACs a sample; at least 90 % of its answers" in words
    assert f"the policy answers {100 * precise['coverage']:.1f} % (" in words


def test_a_certified_precision_is_kept_until_the_thresholds_change(bundle: Path) -> None:
    _, found, policy = tuned(bundle, "--min-precision", "0.9", "--confidence", "0.95")
    promise = policy.precision_certificate
    assert promise is not None
    assert (promise.min_precision, promise.confidence) == (0.9, 0.95)
    assert policy.certificate is not None
    assert found["precision"]["samples"] == promise.samples == 2500
    assert found["precision"]["answered"] == promise.answered
    manifest = read_manifest(bundle)
    data = TuningData.from_bundle(load_table(bundle, manifest), manifest)
    assert verify_precision(policy, data) is True
    assert reproduces_precision(policy, data, [entry.macs for entry in manifest.exits], Default())
    # The same thresholds again.
    _, found, kept = tuned(bundle, "--max-accuracy-drop", "0.5", "--confidence", "0.95")
    assert kept == policy
    assert found["precision"] is None
    result, found, changed = tuned(bundle, "--max-accuracy-drop", "1", "--confidence", "0.95")
    assert (changed.reject_below, changed.precision_certificate) == (policy.reject_below, None)
    assert "no longer promised" in " ".join(found["notes"])
    command = "--max-accuracy-drop 1 --min-precision 0.9 --confidence 0.95"
    assert command in " ".join(result.out.split())


def test_only_a_policy_with_the_promise_has_its_field(bundle: Path) -> None:
    tuned(bundle, "--min-precision", "0.9")
    assert "precision_certificate" not in json.loads((bundle / "policy.json").read_text())


def test_a_drop_and_a_precision_are_certified_together(bundle: Path) -> None:
    goals = ("--max-accuracy-drop", "1", "--min-precision", "0.85", "--confidence", "0.9")
    _, _, policy = tuned(bundle, *goals)
    assert policy.certificate is not None
    assert policy.precision_certificate is not None
    assert policy.certificate.permitted_drop == 1
    assert policy.certificate.confidence == policy.precision_certificate.confidence == 0.9
    assert policy.certificate.split_sha256 == policy.precision_certificate.split_sha256


def test_requests_keep_the_goal_of_the_certificate_in_force(bundle: Path) -> None:
    tuned(bundle, "--max-accuracy-drop", "5", "--confidence", "0.9")
    manifest = read_manifest(bundle)
    table = load_table(bundle, manifest)
    log = bundle.parent / "requests.jsonl"
    with log.open("w") as file:
        for i in range(600):
            line = {"logits": table.logits[:, i].round(4).tolist(), "label": int(table.labels[i])}
            file.write(json.dumps(line) + "\n")
    for confidence in ([], ["--confidence", "0.95"]):
        _, found, _ = tuned(bundle, "--from", log, "--min-precision", "0.7", *confidence)
        expected = 0.95 if confidence else 0.9
        assert (found["goal"]["value"], found["goal"]["confidence"]) == (0.05, expected)


def test_a_precision_out_of_reach_is_answered_with_a_command_that_works(bundle: Path) -> None:
    before = (bundle / "policy.json").read_bytes()
    result = call("tune", bundle, "--min-precision", "0.999")
    assert result.refused_in_one_sentence, result.err + result.out
    assert "2,500 samples support no reject_below with which 99.9 % of the answers" in result.err
    assert (bundle / "policy.json").read_bytes() == before
    (command,) = re.findall(r"these support `offramp (.*)`", result.err)
    assert call(*command.split()).code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--min-precision", "95"], "between 0 and 1, not 95; for 95 % give 0.95."),
        (["--min-precision", "1"], "between 0 and 1, not 1."),
        (["--min-precision", "nan"], "between 0 and 1, not nan."),
        (["--min-precision", "0.9", "--confidence", "95"], "between 0.5 and 1, not 95"),
        (["--budget", "9M", "--confidence", "0.9"], "or with --min-precision"),
    ],
)
def test_an_invalid_precision_is_refused(bundle: Path, arguments: list[str], says: str) -> None:
    result = call("tune", bundle, *arguments)
    assert result.refused_in_one_sentence, result.err + result.out
    assert says in result.err
