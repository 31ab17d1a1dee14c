"""The figures of the embedded bundle: those that its manifest states, and how they are measured."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import embedded as benchmark
from benchmarks.harness import docs
from exports.bundle.reader import read_manifest
from exports.bundle.resolve import CIFAR100
from tests.exports.bundles import FP32, INT8

RESULT = json.loads((benchmark.HERE / "embedded.json").read_text("utf-8"))


def test_the_figures_are_of_the_bundle_that_ships() -> None:
    manifest = read_manifest(CIFAR100)
    assert RESULT["bundle"] == manifest.name
    assert manifest.conversion is not None
    assert manifest.conversion.test is not None
    stated = {
        "fp32": [entry.single for entry in manifest.conversion.test],
        "int8": [entry.test.single for entry in manifest.exits if entry.test is not None],
    }
    for precision, accuracies in stated.items():
        rows = RESULT["precisions"][precision]["rows"]
        measured = [rows[exit_]["accuracy"] for exit_ in ("exit 1", benchmark.ALONE)]
        assert measured == pytest.approx(accuracies, abs=0.03)
    default = manifest.provenance.test_default
    assert default is not None
    early = RESULT["precisions"]["int8"]["rows"]["early exit"]
    assert early["accuracy"] == pytest.approx(default.accuracy, abs=0.03)


def test_the_readme_shows_what_the_benchmark_wrote() -> None:
    text = benchmark.README.read_text("utf-8")
    _, found = text.split("<!-- benchmark: embedded -->\n")
    assert found.split(docs.END)[0] == benchmark.readme_section(RESULT)


def measure(
    bundles: list[Path], data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *options: str
) -> benchmark.Result:
    outputs = ["--json", str(tmp_path / "json"), "--picture", str(tmp_path / "picture.png")]
    size = ["--limit", "200", "--images", "2", "--repeats", "1", "--data", str(data)]
    arguments = ["embedded", "--bundles", *map(str, bundles), *size, *outputs, *options]
    monkeypatch.setattr("sys.argv", arguments)
    benchmark.main()
    result: benchmark.Result = json.loads((tmp_path / "json").read_text("utf-8"))
    return result


def test_precisions_are_measured_in_turns(
    cifar_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = measure([FP32, INT8], cifar_root, tmp_path, monkeypatch)
    assert list(result["precisions"]) == ["fp32", "int8"]
    exits = [f"exit {k}" for k in range(1, 5)]
    for part in result["precisions"].values():
        assert list(part["rows"]) == [*exits, "ensemble", "early exit"]
        assert all(row["ms"] > 0 for row in part["rows"].values())
    assert "Speed is relative to exit 4 in fp32" in benchmark.section(result)
    assert (tmp_path / "picture.png").stat().st_size > 10_000


def test_the_last_network_of_a_cascade_is_measured_without_those_before_it(
    cifar_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = measure([CIFAR100], cifar_root, tmp_path, monkeypatch)
    rows = result["precisions"]["int8"]["rows"]
    assert list(rows) == ["exit 1", benchmark.ALONE, "ensemble", "early exit"]
    costs = {row: figures["mean_mmacs"] for row, figures in rows.items()}
    assert costs[benchmark.ALONE] == pytest.approx(costs["ensemble"] - costs["exit 1"], abs=0.02)
    assert f"Speed is relative to {benchmark.ALONE} in int8" in benchmark.section(result)


def test_writing_the_documents_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "design").mkdir()
    page = Path(shutil.copy(docs.DOCS / "design" / "benchmarks.md", tmp_path / "design"))
    readme = Path(shutil.copy(benchmark.README, tmp_path))
    wanted = page.read_text("utf-8"), readme.read_text("utf-8")
    for document in (page, readme):
        docs.fill_in(document, "embedded", "old\n")
    monkeypatch.setattr(docs, "DOCS", tmp_path)
    monkeypatch.setattr(benchmark, "README", readme)
    monkeypatch.setattr("sys.argv", ["embedded", "--write-docs"])
    benchmark.main()
    assert (page.read_text("utf-8"), readme.read_text("utf-8")) == wanted
