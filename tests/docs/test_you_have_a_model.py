"""The page for those who have a model runs as written, with generated networks."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from exports.bundle.reader import load_bundle
from exports.imported.config import PRESETS
from tests.docs.following import command_folder, run_block
from tests.servers import started

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "guide" / "you-have-a-model.md").read_text("utf-8")
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The directory in which the page was followed, and the output of each block but that of the server."""
    place = tmp_path_factory.mktemp("page")
    (place / "examples").symlink_to(ROOT / "examples")
    start = BLOCKS.index("offramp serve bundle\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", f"{command_folder(place / 'bin')}{os.pathsep}{os.environ['PATH']}")
        patch.setenv("PYTHONPATH", str(ROOT))
        patch.setenv("OFFRAMP_PORT", "0")
        printed = [run_block(block, place) for block in BLOCKS[:start]]
        with started(["bash", "-c", BLOCKS[start]], place) as server:
            for block in BLOCKS[start + 1 :]:
                asked = block.replace("http://127.0.0.1:8000", server.url)
                printed.append(run_block(asked, place))
    return place, printed


def test_the_cascade_is_written_and_saves_most_of_the_large_network(
    followed: tuple[Path, list[str]],
) -> None:
    place, (_, made, inspected, *_) = followed
    assert re.search(r"which saves [89]\d%", made), made
    assert "importing small.onnx, large.onnx" in " ".join(inspected.split())
    assert load_bundle(place / "bundle").manifest.labels == ("red", "grey", "blue", "green")


def test_the_front_is_written_and_certified_as_the_page_says(
    followed: tuple[Path, list[str]],
) -> None:
    place, (_, _, _, front, *_) = followed
    (stated,) = re.findall(r"^Certified: .*\.$", PAGE, re.MULTILINE)
    assert stated in front
    assert [entry.input for entry in load_bundle(place / "fronted").manifest.exits] == [
        *("image", "features", "features", "image")
    ]


def test_an_image_is_answered(followed: tuple[Path, list[str]]) -> None:
    (prediction,) = json.loads(followed[1][4])["predictions"]
    assert prediction["label"] == "red"


def test_the_command_and_the_server_give_the_same_pixels(followed: tuple[Path, list[str]]) -> None:
    place, (*_, written, _) = followed
    assert "seen-stage1.png" in written
    served, own = (np.asarray(Image.open(place / f)) for f in ("seen.png", "seen-stage2.png"))
    assert np.array_equal(served, own)


def test_the_table_has_every_preset() -> None:
    assert re.findall(r"^\| `([a-z-]+)` \| [x(]", PAGE, re.MULTILINE) == list(PRESETS)
