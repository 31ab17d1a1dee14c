"""The README's commands run, and its figures, settings and recipes match the code."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import httpx
import pytest
import sklearn.datasets

from exports.bundle.reader import read_manifest
from exports.bundle.resolve import embedded
from tests.commands import call
from tests.conftest import README, readme_commands
from tests.docs import settings_table
from tests.servers import Server, started

ROOT = README.parent
BENCHMARKS = ROOT / "docs" / "design" / "benchmarks.md"
# Every command of the README, in order, and the test that runs it.
COVERED = {
    "make serve": "test_make_serve_classifies_a_photo",
    "make test": "this test run",
    "pip install '.[cpu,train]'": "make test installs these extras",
    "offramp train digits-teacher": "the fixture workplace",
    "offramp train digits-oto": "the fixture workplace",
    "offramp export runs/digits-oto -o digits": "the fixture workplace",
    "offramp serve digits": "test_end_to_end",
    "offramp tune digits --max-accuracy-drop 1": "test_a_bundle_is_tuned_inspected_and_packed",
    "offramp inspect digits": "test_a_bundle_is_tuned_inspected_and_packed",
    "offramp pack digits -o digits.offramp.zip": "test_a_bundle_is_tuned_inspected_and_packed",
    "docker compose up": "tests/deploy, as far as possible without an engine",
}


@pytest.fixture(scope="module")
def server():  # type: ignore[no-untyped-def]
    """`make serve` as in the README, in this environment and on a free port."""
    command = ["make", "serve", f"VENV={sys.prefix}", "PORT=0"]
    with started(command, ROOT) as running:
        yield running


def photo() -> Path:
    """A real photo of a flower, 640 x 427, that scikit-learn ships."""
    return Path(sklearn.datasets.__file__).parent / "images" / "flower.jpg"


def test_every_command_of_the_readme_is_run() -> None:
    commands = readme_commands()
    assert [c for c in commands if not c.startswith("curl")] == list(COVERED)
    assert sum(c.startswith("curl") for c in commands) == 1


def test_make_serve_classifies_a_photo(server: Server, tmp_path: Path) -> None:
    shutil.copy(photo(), tmp_path / "photo.jpg")
    (command,) = (c for c in readme_commands() if c.startswith("curl"))
    command = command.replace("http://127.0.0.1:8000", server.url)
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, check=True)
    answer = json.loads(done.stdout)
    (prediction,) = answer["predictions"]
    assert answer["model"] == read_manifest(embedded()).name
    assert prediction["label"] in read_manifest(embedded()).labels
    assert len(prediction["top_k"]) == 5
    for page in (README, ROOT / "docs" / "reference" / "http-api.md"):
        shown = json.loads(page.read_text("utf-8").split("```json\n")[1].split("```")[0])
        assert list(shown) == list(answer)
        assert list(shown["predictions"][0]) == list(prediction)
        assert shown["predictions"][0]["measure"].keys() == prediction["measure"].keys()


def test_the_python_client_classifies_as_shown(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", README.read_text("utf-8"), re.M | re.S)
    assert len(code.splitlines()) == 10
    shutil.copy(photo(), tmp_path / "photo.jpg")
    (tmp_path / "notes.txt").write_text("no image")
    monkeypatch.chdir(tmp_path)
    exec(code.replace("http://127.0.0.1:8000", server.url), {})
    first, second, third, *events, models = capsys.readouterr().out.splitlines()
    assert first.split()[0] in read_manifest(embedded()).labels
    assert second in read_manifest(embedded()).labels
    assert third.startswith("The image is in an unknown format")
    assert [event.partition("(")[0] for event in events] == [
        *["ExitReached"] * (len(events) - 1),
        "Answer",
    ]
    assert models == str([read_manifest(embedded()).name])


def test_a_bundle_is_tuned_inspected_and_packed(
    digits_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(digits_bundle, tmp_path / "digits")
    monkeypatch.chdir(tmp_path)
    for command in readme_commands():
        if command.startswith(("offramp tune", "offramp inspect", "offramp pack")):
            done = call(*command.split()[1:])
            assert done.code == 0, done.err
    assert (tmp_path / "digits.offramp.zip").exists()


def test_the_printed_curl_line_works_as_pasted(server: Server) -> None:
    line = next(line for line in server.printed if line.startswith("  curl"))
    done = subprocess.run(line, shell=True, capture_output=True, check=True)
    assert len(json.loads(done.stdout)["predictions"]) == 1


def test_the_embedded_bundle_leaves_earlier_where_the_threshold_is_lower(server: Server) -> None:
    def exit_at(threshold: float) -> int:
        answer = httpx.post(
            f"{server.url}/v1/classify",
            params={"threshold": threshold},
            content=photo().read_bytes(),
            headers={"Content-Type": "image/jpeg"},
        )
        exit_: int = answer.json()["predictions"][0]["exit"]
        return exit_

    assert (exit_at(0.0), exit_at(1.1)) == (1, len(read_manifest(embedded()).exits))


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embedded", ROOT / "benchmarks" / "embedded.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_tables_are_what_the_benchmark_wrote_about_these_bundles(
    benchmark: ModuleType,
) -> None:
    result = json.loads((ROOT / "benchmarks" / "embedded.json").read_text())
    bundles = {"fp32": benchmark.FP32, "int8": embedded()}
    for precision, measured in result["precisions"].items():
        manifest = read_manifest(bundles[precision])
        assert result["bundle"] == manifest.name
        for k, entry in enumerate(manifest.exits, 1):
            accuracy = measured["rows"][f"exit {k}"]["accuracy"]
            assert accuracy == pytest.approx(entry.test.single, abs=0.03)
    tables = {README: benchmark.short_table(result), BENCHMARKS: benchmark.table(result)}
    for document, content in tables.items():
        text = document.read_text("utf-8")
        assert benchmark.with_table(text, content) == text


def test_the_benchmark_measures_both_bundles_in_turns(
    benchmark: ModuleType, cifar_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme, page = (Path(shutil.copy(document, tmp_path)) for document in (README, BENCHMARKS))
    outputs = [f"--json={tmp_path / 'json'}", f"--picture={tmp_path / 'picture.png'}"]
    options = [
        f"--data={cifar_root}",
        "--limit=200",
        "--images=2",
        "--repeats=1",
        f"--readme={readme}",
        f"--page={page}",
        *outputs,
    ]
    monkeypatch.setattr(sys, "argv", ["embedded.py", *options])
    benchmark.main()
    result = json.loads((tmp_path / "json").read_text())
    assert list(result["precisions"]) == ["fp32", "int8"]
    for part in result["precisions"].values():
        assert all(row["ms"] > 0 for row in part["rows"].values())
    assert benchmark.short_table(result) in readme.read_text("utf-8")
    assert benchmark.table(result) in page.read_text("utf-8")


def test_the_page_of_settings_has_every_name_default_and_description() -> None:
    text = settings_table.PAGE.read_text("utf-8")
    assert settings_table.with_table(text) == text


def test_the_page_on_training_lists_every_recipe() -> None:
    training = (ROOT / "docs" / "guide" / "training.md").read_text("utf-8")
    for recipe in (ROOT / "training" / "recipes").glob("*.toml"):
        content = tomllib.loads(recipe.read_text("utf-8"))
        network = content["network"]
        name = (
            network["name"].replace("resnet", "ResNet-").replace("efficientnet-l", "EfficientNet-L")
        )
        size = f"width {network['width']}" if "width" in network else f"{network['side']} pixels"
        shown = f"{name}, {size}"
        assert f"| `{recipe.stem}` | {shown} |" in training


def test_help_is_quick_and_names_every_command() -> None:
    code = (
        "import sys, offramp.cli;"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'fastapi', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    done = subprocess.run(
        [sys.executable, "-m", "offramp.cli", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("train", "recipe", "table", "export", "tune", "picture", "serve", "classify"):
        assert command in done.stdout
