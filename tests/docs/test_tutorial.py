"""The tutorial's commands run as written, in order, with the results that it states."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from exports.bundle.reader import read_manifest
from tests.docs.following import command_folder, run_block
from tests.servers import started
from training.checkpoint import load_checkpoint
from training.recipes.files import load_recipe

ROOT = Path(__file__).parents[2]
TUTORIAL = ROOT / "docs" / "guide" / "your-own-images.md"


def blocks() -> list[str]:
    """The tutorial's bash blocks."""
    text = TUTORIAL.read_text("utf-8")
    return re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Followed:
    """The directory in which the tutorial was followed, and the output of each of its blocks."""

    place: Path
    printed: dict[str, str]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Followed]:
    """Every block run as written, in an empty directory beside the examples. The server keeps running for
    the block after it, on the free port that OFFRAMP_PORT=0 selects."""
    place = tmp_path_factory.mktemp("tutorial")
    (place / "examples").symlink_to(ROOT / "examples")
    *before, serve, ask = blocks()
    printed = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{command_folder(place / 'bin')}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OFFRAMP_PORT", "0")
        for block in before:
            printed[block] = run_block(block, place)
        with started(["bash", "-c", serve], place) as server:
            assert "http://127.0.0.1:8000" in ask
            printed[ask] = run_block(ask.replace("http://127.0.0.1:8000", server.url), place)
    yield Followed(place, printed)
    shutil.rmtree(place)


def test_three_commands_lead_from_a_folder_to_a_server() -> None:
    commands = [line.split()[:2] for block in blocks() for line in block.splitlines()]
    own = [command[1] for command in commands if command[0] == "offramp"]
    assert own == ["train", "export", "classify", "serve"]


def test_the_chosen_recipe_is_printed_with_its_reasons_and_written(done: Followed) -> None:
    (printed,) = (text for block, text in done.printed.items() if "train" in block)
    recipe = load_recipe(str(done.place / "runs" / "photos.toml"))
    assert "240 training images in 3 classes" in printed
    assert "recipe: runs/photos.toml" in printed
    assert f"{recipe.train.epochs} epochs" in printed
    assert load_checkpoint(done.place / "runs" / "photos")[1].recipe == recipe
    tutorial = TUTORIAL.read_text("utf-8")
    for line in printed.splitlines():
        if line.startswith("- "):
            assert line in tutorial, "the tutorial shows another line"


def test_the_network_has_learned_and_the_bundle_has_its_classes_and_input_size(
    done: Followed,
) -> None:
    manifest = read_manifest(done.place / "shapes")
    assert manifest.labels == ("circle", "square", "triangle")
    assert (manifest.input.height, manifest.input.width) == (32, 32)
    assert manifest.provenance.test_default.accuracy > 75
    assert manifest.provenance.recipe["data"]["path"] == "photos"


def test_the_command_line_and_the_server_give_the_same_answer(done: Followed) -> None:
    (classified,) = (text for block, text in done.printed.items() if "classify photos" in block)
    (answer,) = (text for block, text in done.printed.items() if "curl" in block)
    (prediction,) = json.loads(answer)["predictions"]
    assert f": {prediction['label']} " in classified
    assert prediction["exits"] == 4
