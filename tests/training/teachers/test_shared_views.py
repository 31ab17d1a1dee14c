"""Views are filled once: runs share them, and other teachers or images have views of their own."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from tests.training.runs import Killed
from tests.training.teachers.recipes import assemble, run, student, teacher, view_files
from training.report import Report
from training.teachers import cached_views
from training.teachers.classifier import NetworkClassifier


class TeacherCalls:
    """Counts the batches that teachers see."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches = 0
        logits = NetworkClassifier.logits

        def count(classifier: NetworkClassifier, images: Tensor) -> Tensor:
            self.batches += 1
            return logits(classifier, images)

        monkeypatch.setattr(NetworkClassifier, "logits", count)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> TeacherCalls:
    return TeacherCalls(monkeypatch)


def test_a_cache_that_was_filled_in_part_is_completed(
    place: Path, calls: TeacherCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cached_views, "MAX_BATCH_IMAGES", 100)  # three batches a view

    def stop_in_the_second_view(self: Report, view: int, done: int, batches: int) -> None:
        if view == 1 and done == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Report, "filling", stop_in_the_second_view)
        with pytest.raises(Killed):
            run(place, student())
    assert [path.name for path in view_files(place)] == ["view-00.safetensors"]
    assert calls.batches == 3 + 2
    run(place, student(), resume=True)
    assert [path.name for path in view_files(place)] == [
        "view-00.safetensors",
        "view-01.safetensors",
    ]
    assert calls.batches == 3 + 2 + 3


def test_the_second_student_computes_nothing_and_any_seed_shares_the_views(
    place: Path, calls: TeacherCalls
) -> None:
    said: list[str] = []
    run(place, student(epochs=3), say=said.append)
    assert calls.batches == 3
    directory = view_files(place)[0].parent
    assert directory.parent == place / "teacher" / "views"
    assert said[1].endswith(f"MiB in {directory}, 0 of them filled already")
    before = {path: path.read_bytes() for path in view_files(place)}
    assert len(before) == 3

    said.clear()
    run(place, student("mskd", name="second", seed=1, exits=(2, 4), epochs=3), say=said.append)
    assert calls.batches == 3
    assert said[1].startswith("teacher's views: 3 of 0.02 MiB each, 0.06 MiB in ")
    assert said[1].endswith(f"{directory}, 3 of them filled already")
    assert {path: path.read_bytes() for path in view_files(place)} == before


def test_a_damaged_view_is_computed_again_to_the_same_logits(
    place: Path, calls: TeacherCalls
) -> None:
    run(place, student())
    damaged, whole = view_files(place)
    before = load_file(damaged)["logits"].clone()  # the file is mapped
    damaged.write_bytes(damaged.read_bytes()[:-10])
    said: list[str] = []
    run(place, student(name="second"), say=said.append)
    assert [line for line in said if "computed again" in line] == [
        f"{damaged} is damaged or of other training images: the view is computed again."
    ]
    assert calls.batches == 3
    assert torch.equal(load_file(damaged)["logits"], before)
    assert whole.exists()


def test_another_teacher_and_another_augmentation_have_caches_of_their_own(
    place: Path, calls: TeacherCalls
) -> None:
    run(place, student(epochs=1))
    run(place, student(name="more-padding", data={"padding": 2}, epochs=1))
    assert calls.batches == 2
    shutil.move(place / "teacher" / "views", place / "views-of-the-first-teacher")
    shutil.rmtree(place / "teacher")
    run(place, teacher(seed=1))
    shutil.move(place / "views-of-the-first-teacher", place / "teacher" / "views")
    run(place, student(name="other-teacher", epochs=1))
    assert calls.batches == 3
    assert len({path.parent for path in view_files(place)}) == 3


def test_a_changed_image_in_a_folder_has_a_cache_of_its_own(
    tmp_path: Path, calls: TeacherCalls
) -> None:
    for shade in range(20):
        for name in ("dark", "light"):
            (tmp_path / "photos" / name).mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (32, 32), (shade + 200 * (name == "light"),) * 3)
            image.save(tmp_path / "photos" / name / f"{shade:02d}.png")
    data: dict[str, object] = {"name": "folder", "path": "photos", "side": 32, "held_out": 4}
    run(tmp_path, teacher(data=data, batch_size=8))
    for name in ("first", "second"):
        run(tmp_path, student(name=name, data=data, epochs=1, batch_size=8))
    assert calls.batches == 1
    for path in (tmp_path / "photos").rglob("*.png"):
        Image.new("RGB", (32, 32), (99, 0, 0)).save(path)
    run(tmp_path, student(name="third", data=data, epochs=1, batch_size=8))
    assert calls.batches == 2
    assert len({path.parent for path in view_files(tmp_path)}) == 2


def test_two_students_that_fill_the_same_view_at_once_compute_it_once(
    place: Path, calls: TeacherCalls
) -> None:
    recipe = student(epochs=1)
    loaded: list[Tensor] = []

    def load() -> None:
        _, _, views = assemble(place, recipe)
        assert views is not None
        loaded.append(views.load(0, None).logits)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.equal(*loaded)
    assert calls.batches == 1
    files = sorted(path.name for path in view_files(place)[0].parent.iterdir())
    assert files == ["key.json", "view-00.safetensors"]
