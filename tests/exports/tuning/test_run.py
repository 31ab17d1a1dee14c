"""`offramp tune` reaches its goal, reports the result, and writes the policy or nothing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from exports.bundle.reader import Table, load_table, read_manifest, read_policy, sha256, write_table
from exports.bundle.writing import write_policy
from exports.tuning.goal import TuningData
from exports.tuning.select import verify_certificate
from exports.tuning.simulation import simulate
from tests.commands import call
from tests.exports.bundles import INT8


@pytest.fixture(scope="module", autouse=True)
def _searched_once() -> Iterator[None]:
    """Samples prepared for tuning keep what was searched, and all tests share those of equal tables."""
    prepare = TuningData.from_table
    prepared: dict[object, TuningData] = {}

    def shared(table: Table, *settings: object) -> TuningData:
        key = (table.logits.tobytes(), table.labels.tobytes(), *settings)
        if key not in prepared:
            prepared[key] = prepare(table, *settings)  # type: ignore[arg-type]
        return prepared[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TuningData, "from_table", shared)
        yield


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the bundle with four exits."""
    return Path(shutil.copytree(INT8, tmp_path / "bundle"))


def tuned(bundle: Path, *arguments: object) -> dict[str, Any]:
    """The JSON of `offramp tune`."""
    file = bundle.parent / "out.json"
    result = call("tune", bundle, "--json", file, *arguments)
    assert result.code == 0, result.err
    content: dict[str, Any] = json.loads(file.read_text())
    return content


def test_without_a_goal_the_policy_is_certified_and_written(bundle: Path) -> None:
    result = call("tune", bundle)
    assert result.code == 0, result.err
    assert "With probability 95 %, the accuracy is at most 0.5 points below" in result.out
    assert f"Written to {bundle / 'policy.json'}.\n" in result.out
    manifest = read_manifest(bundle)
    policy = read_policy(bundle, manifest)
    assert policy.certificate is not None
    table = load_table(bundle, manifest)
    assert verify_certificate(policy, TuningData.from_bundle(table, manifest))
    assert sorted(p.name for p in bundle.iterdir()) == sorted(p.name for p in INT8.iterdir())


def test_reject_below_is_kept(bundle: Path) -> None:
    before = read_policy(bundle, read_manifest(bundle))
    write_policy(bundle, before.override(reject_below=0.4))
    tuned(bundle, "--max-accuracy-drop", "1")
    policy = read_policy(bundle, read_manifest(bundle))
    assert policy.reject_below == 0.4
    assert policy.thresholds != before.thresholds


def test_the_json_has_the_results_of_the_policy(bundle: Path) -> None:
    found = tuned(bundle, "--max-accuracy-drop", "1")
    manifest = read_manifest(bundle)
    policy = read_policy(bundle, manifest)
    assert policy.certificate is None
    assert found["chosen"]["policy"] == json.loads(policy.model_dump_json())
    assert found["written"] is True
    table = load_table(bundle, manifest)
    whole = simulate(policy, table.logits, manifest.scaling)
    chosen = found["chosen"]
    assert chosen["exit_shares"] == pytest.approx(whole.shares(4), abs=1e-5)
    assert found["source"]["cross_validated"] is True
    assert found["source"]["chosen_on"] == found["source"]["measured_on"] == 5000
    # On samples that it was not chosen on it is worse than on all, and still as permitted.
    assert chosen["accuracy"] < 100 * whole.accuracy(table.labels)
    assert chosen["drop"] <= 1
    low, high = chosen["drop_interval"]
    assert 0 < low < chosen["drop"] < high < 2
    assert chosen["losses"] - chosen["gains"] == pytest.approx(50 * chosen["drop"], abs=0.1)
    ensemble = found["others"]["ensemble of all"]
    assert ensemble["drop_interval"] == [0, 0]
    assert found["notes"] == []
    assert (ensemble["drop"], ensemble["speed_up"]) == (0, 1)
    assert found["chosen"]["speed_up"] > 1.2
    costs = [row["mean_macs"] for row in found["frontier"]]
    assert len(costs) > 20
    assert costs[0] < costs[-1]
    for which in ("single", "running"):
        assert len(found["calibration"][which]) == 4
        assert set(found["calibration"][which][0]) == {
            "temperature",
            "ece_before",
            "ece_after",
            "auroc_before",
            "auroc_after",
        }


def test_the_table_shows_every_exit_and_calibration(bundle: Path) -> None:
    result = call("tune", bundle, "--dry-run")
    for name in (
        "chosen",
        "in force before",
        "ensemble of all",
        *(f"exit {k}" for k in range(1, 5)),
    ):
        assert re.search(rf"^{name}.*\d x ", result.out, re.MULTILINE), name
    assert "Calibration error (15 bins)" in result.out
    assert "AUROC" in result.out


def test_a_certified_policy_is_measured_on_the_samples_that_certify(bundle: Path) -> None:
    found = tuned(bundle)
    manifest = read_manifest(bundle)
    policy = read_policy(bundle, manifest)
    table = load_table(bundle, manifest)
    data = TuningData.from_bundle(table, manifest)
    stats = data.certification.evaluate(policy)
    assert found["chosen"]["accuracy"] == pytest.approx(100 * stats.accuracy, abs=1e-3)
    assert found["chosen"]["exit_shares"] == pytest.approx(stats.exit_shares, abs=1e-5)
    assert (found["source"]["chosen_on"], found["source"]["measured_on"]) == (2500, 2500)
    assert found["source"]["cross_validated"] is False


@pytest.mark.parametrize("count", [60, 120, 600])
@pytest.mark.parametrize("options", [[], ["--max-accuracy-drop", "0.2"]])
def test_few_samples_end_with_a_policy_and_the_next_command(
    bundle: Path, count: int, options: list[str]
) -> None:
    shorten_table(bundle, count)
    result = call("tune", bundle, *options)
    assert result.code == 0, result.err
    words = " ".join(result.out.split())
    assert f"{bundle} --max-accuracy-drop" in words or "By cross-validation" in words
    manifest = read_manifest(bundle)
    policy = read_policy(bundle, manifest)
    assert policy.certificate is None
    if options or count < 600:
        assert set(policy.thresholds) == {2.0}
        assert "The policy runs every image to full depth." in words
        (command,) = re.findall(r"these support `offramp (.*)`", words)
        again = call(*command.split())
        assert again.code == 0, again.err
        assert "By cross-validation" in again.out
        assert set(read_policy(bundle, manifest).thresholds) != {2.0}


def shorten_table(bundle: Path, count: int) -> None:
    """Leave the first `count` samples in the calibration table of `bundle`."""
    manifest = read_manifest(bundle)
    write_table(
        bundle / "calibration.npz",
        load_table(bundle, manifest).take(np.arange(count)),
        "held_out",
    )
    content = json.loads((bundle / "manifest.json").read_text())
    content["calibration"]["samples"] = count
    content["calibration"]["sha256"] = sha256((bundle / "calibration.npz").read_bytes())
    (bundle / "manifest.json").write_text(json.dumps(content))


def test_a_dry_run_writes_no_policy(bundle: Path) -> None:
    before = (bundle / "policy.json").read_bytes()
    assert tuned(bundle, "--dry-run")["written"] is False
    assert (bundle / "policy.json").read_bytes() == before


@pytest.mark.parametrize("budget", ["100M", "100M MACs", "0.1G", "100000000"])
def test_a_budget_in_macs_is_respected(bundle: Path, budget: str) -> None:
    found = tuned(bundle, "--budget", budget, "--dry-run")
    assert found["goal"] == {"kind": "budget", "value": 1e8, "confidence": None, "unit": "macs"}
    assert 0.8e8 < found["chosen"]["mean_macs"] <= 1e8


def test_a_budget_in_milliseconds_is_measured_here(bundle: Path) -> None:
    costs = tuned(bundle, "--cost", "ms", "--dry-run")["costs"]["ms"]
    assert 0 < costs[0] < costs[1] < costs[2] < costs[3]
    budget = 10 * costs[3]  # reachable on a busy machine
    found = tuned(bundle, "--budget", f"{budget:.3f}ms", "--dry-run")
    assert found["goal"]["unit"] == "ms"
    assert found["chosen"]["mean_ms"] <= budget
    result = call("tune", bundle, "--budget", "0.0001 ms")
    assert result.refused_in_one_sentence
    assert "No policy costs 0.0001 ms a sample or less; the cheapest costs" in result.err


def test_the_trade_off_is_drawn(bundle: Path, tmp_path: Path) -> None:
    picture = tmp_path / "tradeoff.png"
    assert call("tune", bundle, "--picture", picture).code == 0
    with Image.open(picture) as drawn:
        assert drawn.format == "PNG"
        assert read_manifest(bundle).calibration.sha256[:12] in drawn.text["Source"]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--max-accuracy-drop", "1", "--budget", "9M"], "Give one of"),
        (["--budget", "9M", "--confidence", "0.9"], "goes with --max-accuracy-drop alone"),
        (["--confidence", "95"], "between 0.5 and 1, not 95"),
        (["--max-accuracy-drop", "-1"], "between 0 and 100, not -1"),
        (["--min-accuracy", "nan"], "between 0 and 100, not nan"),
        (["--min-accuracy", "99.5"], "No policy is right on 99.5 %"),
        (["--budget", "fast"], "must be as in 90M"),
        (["--budget", "0"], "must be as in 90M"),
        (["--budget", "9M", "--cost", "ms"], "is not in ms, as --cost is"),
        (["--budget", "1k"], "the cheapest costs 41.95 M MACs"),
        (["--max-accuracy-drop", "0.01", "--confidence", "0.95"], "would do; without"),
        (["--json", "/no/such/place/x.json"], "there is no directory"),
        (["--json", "."], "it is a directory"),
        (["--picture", "x.jpg"], "must end in .png"),
        (["--from", "none.jsonl"], "cannot be read"),
    ],
)
def test_an_invalid_request_is_refused_and_nothing_is_written(
    bundle: Path, arguments: list[str], says: str
) -> None:
    before = (bundle / "policy.json").read_bytes()
    result = call("tune", bundle, *arguments)
    assert result.refused_in_one_sentence, result.err + result.out
    assert says in result.err
    assert (bundle / "policy.json").read_bytes() == before


def test_a_tampered_table_is_refused(bundle: Path) -> None:
    with (bundle / "calibration.npz").open("ab") as file:
        file.write(b"x")
    result = call("tune", bundle)
    assert result.refused_in_one_sentence
    assert "calibration.npz is damaged" in result.err


@pytest.mark.parametrize("labelled", [True, False])
def test_a_request_log_can_replace_the_table(bundle: Path, labelled: bool) -> None:
    manifest = read_manifest(bundle)
    table = load_table(bundle, manifest)
    log = bundle.parent / "requests.jsonl"
    with log.open("w") as file:
        for i in range(3000):
            line: dict[str, Any] = {"logits": table.logits[:, i].round(4).tolist()}
            if labelled:
                line["label"] = manifest.labels[table.labels[i]]
            file.write(json.dumps(line) + "\n")
    goal = ("--max-accuracy-drop", "2", "--confidence", "0.9")
    found = tuned(bundle, "--from", log, *goal, "--write")
    certificate = read_policy(bundle, manifest).certificate
    assert certificate is not None
    target = "labels" if labelled else "agreement"
    assert certificate.target == found["source"]["target"] == target
    assert (certificate.chosen_on, certificate.samples) == (1000, 2000)
    assert (found["calibration"]["single"] is not None) == labelled
    if not labelled:
        assert certificate.method == "clopper-pearson"
        assert found["others"]["ensemble of all"]["accuracy"] == 100
        assert "at most 2 % of the answers are not the ensemble's" in certificate.sentence


def test_a_full_disk_keeps_the_old_policy(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = (bundle / "policy.json").read_bytes()
    monkeypatch.setattr("os.fsync", full)
    result = call("tune", bundle)
    assert result.code == 2
    assert "No space left" in result.err
    assert (bundle / "policy.json").read_bytes() == before
    assert not list(bundle.glob("*.part"))
