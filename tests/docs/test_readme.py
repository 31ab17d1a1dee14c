"""The README's commands run, and its settings and recipes match the code."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import httpx
import pytest
import sklearn.datasets

from exports.bundle.reader import read_manifest
from exports.bundle.resolve import EMBEDDED, GROCERIES
from tests.commands import call
from tests.conftest import README, readme_commands
from tests.docs import settings_table
from tests.servers import Server, started

ROOT = README.parent
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
    assert answer["model"] == "groceries"
    assert prediction["label"] in read_manifest(GROCERIES).labels
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
    assert first.split()[0] in read_manifest(GROCERIES).labels
    assert second in read_manifest(GROCERIES).labels
    assert third.startswith("The image is in an unknown format")
    assert [event.partition("(")[0] for event in events] == [
        *["ExitReached"] * (len(events) - 1),
        "Answer",
    ]
    assert models == str(list(EMBEDDED))


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

    assert (exit_at(0.0), exit_at(1.1)) == (1, len(read_manifest(GROCERIES).exits))


def test_the_figures_of_the_network_for_groceries_are_those_of_its_manifest() -> None:
    manifest = read_manifest(GROCERIES)
    default, (first, last) = manifest.provenance.test_default, manifest.exits
    cost = default.mean_macs / (last.macs - first.macs)
    text = " ".join(README.read_text("utf-8").split())
    assert f"{len(manifest.labels)} kinds of fruit" in text
    assert f"it is right on {default.accuracy:.0f} % of photographs" in text
    assert f"at {cost:.2f} of that one's cost" in text
    assert f"{last.test.single:.0f} %" == f"{default.accuracy:.0f} %"
    training = (ROOT / "docs" / "guide" / "training.md").read_text("utf-8")
    assert (
        f"| the default policy | {default.accuracy:.2f} | {default.mean_macs / 1e6:.1f} |"
        in training
    )
    assert f"| exit 1, 128 pixels | {first.test.single:.2f} | {first.macs / 1e6:.1f} |" in training
    assert f"| ensemble | {last.test.running:.2f} | {last.macs / 1e6:.1f} |" in training


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
