"""A run survives kills, interrupts, a full disk and damaged files, and reports what to do."""

from __future__ import annotations

import functools
import pickle
import random
import resource
import signal
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.training.processes import Offramp
from tests.training.runs import (
    FINISHED_FILES,
    RECIPE,
    contents,
    count_calls,
    history,
    kill_after,
    kill_at,
)
from training import loop
from training.checkpoint import load_checkpoint, resume_state
from training.errors import BusyError, CheckpointError, DivergedError
from training.recipes.files import load_recipe
from training.recipes.schema import Recipe
from training.report import Report
from training.run import run_recipe


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with recipe.toml."""
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return tmp_path


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished run of an uninterrupted process; the number of its function calls is in ../../calls."""
    place = tmp_path_factory.mktemp("uninterrupted")
    (place / "recipe.toml").write_text(RECIPE)
    counted = functools.partial(count_calls, place / "calls")
    done = Offramp("train", "recipe.toml", cwd=place, first=counted)
    assert done.wait() == 0, done.output
    return place / "runs" / "tiny"


def tiny(place: Path) -> Recipe:
    return load_recipe(str(place / "recipe.toml"))


def run(place: Path, resume: bool = False) -> None:
    run_recipe(tiny(place), runs=place / "runs", data_root=place, resume=resume, say=lambda _: None)


def assert_same(directory: Path, uninterrupted: Path) -> None:
    assert sorted(contents(directory)) == FINISHED_FILES
    assert contents(directory)["model.safetensors"] == contents(uninterrupted)["model.safetensors"]
    assert history(directory) == history(uninterrupted)


def test_a_run_killed_at_each_file_it_writes_resumes_to_the_identical_result(
    place: Path, uninterrupted: Path
) -> None:
    for name, when, turn in (
        ("metrics.jsonl", "half", 2),  # epoch 1; the first time is the start
        ("resume.safetensors", "half", 1),
        ("resume.safetensors", "before", 2),
        ("resume.safetensors", "after", 1),
        ("curves.png", "half", 1),
        ("model.safetensors", "half", 1),
        ("model.safetensors", "after", 1),
        ("checkpoint.json", "half", 1),
        ("checkpoint.json", "after", 1),  # the resume file is still there
    ):
        deadly = functools.partial(kill_at, name, when, turn)
        killed = Offramp("train", "recipe.toml", "--resume", cwd=place, first=deadly)
        assert killed.wait() == -signal.SIGKILL, (name, when, killed.output)
    assert (place / "runs" / "tiny" / "resume.safetensors").exists()
    last = Offramp("train", "recipe.toml", "--resume", cwd=place)
    assert last.wait() == 0, last.output
    assert "finished already" in last.output
    assert_same(place / "runs" / "tiny", uninterrupted)


def test_a_run_killed_at_random_moments_resumes_to_the_identical_result(
    place: Path, uninterrupted: Path
) -> None:
    # Moments are counted in function calls, so that a busy machine does not move them.
    moments = random.Random(0)
    calls = int((uninterrupted.parents[1] / "calls").read_text())
    codes = []
    for _ in range(4):
        deadly = functools.partial(
            kill_after, int(moments.uniform(1, 0.9 * calls)), moments.uniform(1e-6, 5e-3)
        )
        victim = Offramp("train", "recipe.toml", "--resume", cwd=place, first=deadly)
        codes.append(victim.wait())
    # The first one begins with nothing, so it cannot end before. A later one may have little left to do.
    assert codes[0] == -signal.SIGALRM
    assert set(codes) <= {-signal.SIGALRM, 0}
    last = Offramp("train", "recipe.toml", "--resume", cwd=place)
    assert last.wait() == 0, last.output
    assert_same(place / "runs" / "tiny", uninterrupted)


def block_in_the_second_epoch() -> None:
    step, epochs = Report.step, 0

    def blocking(self: Report, done: int, steps: int) -> None:
        nonlocal epochs
        epochs += done == 1
        if epochs == 2:
            time.sleep(600)
        step(self, done, steps)

    Report.step = blocking  # type: ignore[method-assign]


def test_a_second_process_on_the_same_run_is_refused_until_the_first_ends(place: Path) -> None:
    first = Offramp("train", "recipe.toml", cwd=place, first=block_in_the_second_epoch)
    first.wait_for(place / "runs" / "tiny" / "resume.safetensors")
    before = contents(place / "runs" / "tiny")
    with pytest.raises(BusyError, match="another process is training in"):
        run(place, resume=True)
    assert contents(place / "runs" / "tiny") == before
    first.kill()
    run(place, resume=True)
    assert sorted(contents(place / "runs" / "tiny")) == FINISHED_FILES


def test_ctrl_c_exits_with_130_and_a_line_that_names_resume(place: Path) -> None:
    stopped = Offramp("train", "recipe.toml", cwd=place, first=block_in_the_second_epoch)
    stopped.wait_for(place / "runs" / "tiny" / "resume.safetensors")
    stopped.send(signal.SIGINT)
    assert stopped.wait() == 130
    headline, epoch, line = stopped.output.splitlines()
    assert (headline[:5], epoch[:9]) == ("tiny:", "epoch 1/4")
    assert line == "offramp: stopped; add --resume to the same command to go on."


def limit_files(size: int) -> None:
    """Limit the files of this process to `size` bytes, as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def test_a_full_disk_is_reported_in_one_sentence_and_the_previous_state_is_kept(
    place: Path,
) -> None:
    directory = place / "runs" / "tiny"
    deadly = functools.partial(kill_at, "resume.safetensors", "after", 1)
    Offramp("train", "recipe.toml", cwd=place, first=deadly).wait()
    state = contents(directory)["resume.safetensors"]
    full = functools.partial(limit_files, len(state) - 1)
    failed = Offramp("train", "recipe.toml", "--resume", cwd=place, first=full)
    assert failed.wait() == 2
    sentence = failed.output.splitlines()[-1]
    assert sentence.startswith(f"offramp: {Path('runs/tiny/resume.safetensors')} cannot be written")
    assert "Traceback" not in failed.output
    assert not [name for name in contents(directory) if name.endswith((".part", "lock"))]
    assert contents(directory)["resume.safetensors"] == state


def test_a_loss_that_is_not_finite_keeps_the_state_of_the_previous_epoch(
    place: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: Path
) -> None:
    steps = (1397 - 1130) // 64
    usual = loop.learning_rate
    for broken, message in (
        (range(steps, 2 * steps), "the loss is nan in epoch 2"),
        (range(2 * steps - 1, 2 * steps), "a weight is no longer finite in epoch 2"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(
                loop,
                "learning_rate",
                lambda settings, step, steps, broken=broken: (
                    float("inf") if step in broken else usual(settings, step, steps)
                ),
            )
            with pytest.raises(DivergedError, match=message) as caught:
                run(place, resume=True)
        assert "add --resume to go on" in str(caught.value)
        assert caught.value.exit_code == 2
        state = resume_state(place / "runs" / "tiny")
        assert state is not None
        assert state.epochs_done == 1
    run(place, resume=True)
    assert_same(place / "runs" / "tiny", uninterrupted)


@pytest.mark.parametrize("what", ["truncated", "foreign", "pickle"])
def test_an_invalid_resume_file_is_refused_in_one_sentence(
    place: Path, uninterrupted: Path, what: str
) -> None:
    directory = place / "runs" / "tiny"
    directory.mkdir(parents=True)
    weights = (uninterrupted / "model.safetensors").read_bytes()
    rubbish = {"truncated": weights[:-1], "foreign": weights, "pickle": pickle.dumps({"a": 1})}
    (directory / "resume.safetensors").write_bytes(rubbish[what])
    with pytest.raises(CheckpointError, match=r"resume\.safetensors") as caught:
        run(place, resume=True)
    assert "\n" not in str(caught.value)
    assert contents(directory) == {"resume.safetensors": rubbish[what]}


@pytest.mark.parametrize("what", ["other weights", "not json", "not utf-8"])
def test_an_invalid_checkpoint_is_refused_in_one_sentence(
    tmp_path: Path, uninterrupted: Path, what: str
) -> None:
    (tmp_path / "model.safetensors").write_bytes((uninterrupted / "model.safetensors").read_bytes())
    config = (uninterrupted / "checkpoint.json").read_bytes()
    if what == "other weights":
        save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    config = {"not json": config[:-9], "not utf-8": b"\xff" + config}.get(what, config)
    (tmp_path / "checkpoint.json").write_bytes(config)
    with pytest.raises(CheckpointError, match=str(tmp_path)) as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_resuming_a_run_and_reading_its_checkpoint_unpickle_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadly = functools.partial(kill_at, "resume.safetensors", "after", 3)
    Offramp("train", "recipe.toml", cwd=place, first=deadly).wait()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("something was unpickled")

    for name in ("pickle.load", "pickle.loads", "pickle.Unpickler", "torch.load"):
        monkeypatch.setattr(name, forbidden)
    run(place, resume=True)
    network, _ = load_checkpoint(place / "runs" / "tiny")
    assert sum(p.numel() for p in network.parameters()) > 0
