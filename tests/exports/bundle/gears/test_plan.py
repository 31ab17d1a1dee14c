"""gears.json is optional, and refused in a sentence if it does not fit its bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from exports.bundle.archive import pack_bundle
from exports.bundle.errors import BundleError
from exports.bundle.gears.plan import GearPlan, read_gears, write_gears
from exports.bundle.inspection import inspect_bundle
from exports.bundle.policy import Policy
from exports.bundle.reader import load_bundle, read_manifest
from exports.bundle.resolve import resolve_bundle
from tests.serving.tiny_bundle import write_tiny_bundle
from tests.serving.tiny_gears import tiny_plan, write_tiny_gears


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return write_tiny_gears(write_tiny_bundle(tmp_path / "tiny"))


def test_a_bundle_without_gears_is_valid(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "tiny")
    assert load_bundle(path).gears is None


def test_gears_are_read_as_they_were_written(bundle: Path) -> None:
    plan = tiny_plan(read_manifest(bundle))
    assert load_bundle(bundle).gears == plan
    assert inspect_bundle(bundle).unknown == ()


def test_gears_are_packed(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    pack_bundle(bundle, tmp_path / "tiny.zip")
    unpacked = resolve_bundle(tmp_path / "tiny.zip")
    assert load_bundle(unpacked).gears == load_bundle(bundle).gears
    plan = load_bundle(unpacked).gears
    assert plan is not None
    with pytest.raises(BundleError, match="read-only"):
        write_gears(unpacked, plan)


def _first(content: dict[str, Any]) -> dict[str, Any]:
    gear: dict[str, Any] = content["gears"][0]
    return gear


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c.update(format=2), "format 2"),
        (lambda c: c.update(calibration_sha256="0" * 64), "another calibration table"),
        (lambda c: c.update(colour="red"), "colour"),
        (lambda c: c.update(gears=[]), "gears"),
        (lambda c: c["gears"].reverse(), "must be cheaper"),
        (lambda c: _first(c).update(accuracy=99.0), "not within its interval"),
        (lambda c: _first(c).update(exit_shares=[1.0]), "one entry per exit"),
        (lambda c: _first(c).update(mean_macs=float("nan")), "not a number"),
    ],
)
def test_gears_that_do_not_fit_are_refused(bundle: Path, change: Any, says: str) -> None:
    file = bundle / "gears.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=says) as refusal:
        load_bundle(bundle)
    assert "gears.json" in str(refusal.value)


def test_gears_for_another_number_of_exits_are_refused(bundle: Path) -> None:
    plan = tiny_plan(read_manifest(bundle))
    gear = plan.gears[0].model_copy(
        update={"policy": Policy(thresholds=(0.5,), max_exit=2), "exit_shares": (0.5, 0.5)}
    )
    write_gears(bundle, plan.model_copy(update={"gears": (gear,)}))
    with pytest.raises(BundleError, match="2 exits, but the bundle has 3"):
        load_bundle(bundle)


def test_a_link_is_no_plan(bundle: Path, tmp_path: Path) -> None:
    file = bundle / "gears.json"
    file.rename(tmp_path / "elsewhere.json")
    file.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(BundleError, match="link"):
        read_gears(bundle, read_manifest(bundle))


def test_a_gear_has_no_certificate(bundle: Path) -> None:
    content = json.loads((bundle / "gears.json").read_text())
    certificate = {
        **{"method": "exact-score", "permitted_drop": 0.5, "confidence": 0.95, "bound": 0.1},
        **{"chosen_on": 10, "samples": 10, "split_sha256": "0" * 64, "target": "labels"},
    }
    _first(content)["policy"]["certificate"] = certificate
    with pytest.raises(ValueError, match="has a certificate"):
        GearPlan.model_validate(content)
