"""Two processes train the same network as one, and an error in one of them ends both."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import distributed, nn

from tests.training.processes import context, two
from tests.training.runs import contents, kill_at
from training.assemble import build_step
from training.checkpoint import load_checkpoint, resume_state
from training.data.batches import DeviceDataset
from training.data.load import load_dataset
from training.distributed import CpuSyncBatchNorm, DistContext, sync_batch_norm
from training.errors import RecipeError
from training.models.build import build_network
from training.recipes.files import load_recipe
from training.recipes.schema import Recipe
from training.run import run_recipe

TEACHER = """
name = "teacher"
[data]
name = "digits"
held_out = 1000
padding = 1
flip = false
[network]
name = "resnet10"
width = 4
exits = [4]
[objective]
method = "cross_entropy"
[train]
epochs = 2
batch_size = 64
learning_rate = 0.02
precision = "fp32"
"""
STUDENT = TEACHER.replace('"teacher"', '"student"').replace('"cross_entropy"', '"kd"') + (
    '[teacher]\nrecipe = "teacher"\n'
)
CACHED = STUDENT.replace('"student"', '"cached"') + "views = 2\n"
# Distance between the weights of two runs in units of their size. On a CPU torch's own batch norm is
# exact to 1e-4 only, in float32 and channels_last, and the error grows over a dozen steps. (With batch
# norm over each process's half only, the distance is 7e-4.) The gradients are compared in float64 below, to
# 1e-6.
TOLERANCE = 5e-4


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with recipes and the runs of the teacher and of two students, one with cached views,
    each trained by one process."""
    place = tmp_path_factory.mktemp("alone")
    for name, text in (("teacher", TEACHER), ("student", STUDENT), ("cached", CACHED)):
        (place / f"{name}.toml").write_text(text)
        train(place, name)
    return place


@pytest.fixture
def place(alone: Path, tmp_path: Path) -> Path:
    """The same directory, with the teacher's run and views only."""
    shutil.copytree(alone, tmp_path, dirs_exist_ok=True)
    for name in ("student", "cached"):
        shutil.rmtree(tmp_path / "runs" / name)
    return tmp_path


def train(place: Path, name: str, resume: bool = False) -> None:
    run_recipe(
        load_recipe(str(place / f"{name}.toml")),
        runs=place / "runs",
        data_root=place,
        device="cpu",
        resume=resume,
        say=lambda _: None,
    )


def assert_close(place: Path, alone: Path, name: str = "student") -> None:
    ours, config = load_checkpoint(place / "runs" / name)
    theirs, single = load_checkpoint(alone / "runs" / name)
    mine, whole = (
        torch.cat([p.detach().flatten() for p in net.parameters()]) for net in (ours, theirs)
    )
    assert float((mine - whole).norm() / whole.norm()) < TOLERANCE
    for part, buffer in ours.named_buffers():
        torch.testing.assert_close(buffer, theirs.get_buffer(part), rtol=0.02, atol=0.02, msg=part)
    assert config.held_out.exits == pytest.approx(single.held_out.exits, abs=0.3)


STUDENTS_RUN = ("train", "student.toml", "--resume")


def test_two_processes_of_torchrun_train_what_one_does(place: Path, alone: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc-per-node", "2", "-m", "offramp.cli"),
            *("train", "student.toml", "--device", "cpu"),
        ],
        cwd=place,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test accuracy") == 1
    assert "397 images on 2 x cpu in " in done.stdout.splitlines()[0]
    assert done.stderr.count("epoch 1/2") == 1
    files = sorted(path.name for path in (place / "runs" / "student").iterdir())
    assert files == ["checkpoint.json", "curves.png", "metrics.jsonl", "model.safetensors"]
    assert_close(place, alone)


def test_when_one_of_two_is_killed_both_end_and_a_single_process_can_resume(
    place: Path, alone: Path
) -> None:
    deadly = functools.partial(kill_at, "resume.safetensors", "after", 1)
    killed, other = two(place, STUDENTS_RUN, {0: deadly})
    assert killed.wait() == -signal.SIGKILL
    assert other.wait() > 0
    state = resume_state(place / "runs" / "student")
    assert state is not None
    assert state.epochs_done == 1
    train(place, "student", resume=True)
    assert_close(place, alone)


@pytest.mark.parametrize("filled", [False, True])
def test_two_processes_train_on_cached_views_what_one_does(
    place: Path, alone: Path, filled: bool
) -> None:
    views = place / "runs" / "teacher" / "views"
    if not filled:
        shutil.rmtree(views)
    for process in two(place, ("train", "cached.toml"), {}):
        assert process.wait() == 0, process.output
    assert_close(place, alone, "cached")
    files = contents(views)
    assert sorted(Path(name).name for name in files) == [
        "key.json",
        "view-00.safetensors",
        "view-01.safetensors",
    ]
    for name in files:
        if name.endswith(".safetensors"):
            ours, theirs = (
                load_file(runs / "runs" / "teacher" / "views" / name) for runs in (place, alone)
            )
            assert torch.equal(ours["logits"], theirs["logits"])


def diverge() -> None:
    """Make the loss of this process NaN in the second epoch."""
    forward, steps = nn.parallel.DistributedDataParallel.forward, 0

    def poisoned(self: nn.Module, *inputs: object) -> torch.Tensor:
        nonlocal steps
        steps += 1
        loss: torch.Tensor = forward(self, *inputs)
        return loss * (float("nan") if steps > 6 else 1.0)

    nn.parallel.DistributedDataParallel.forward = poisoned  # type: ignore[method-assign]


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_in_one_of_two_ends_both_with_one_sentence(place: Path, rank: int) -> None:
    processes = two(place, STUDENTS_RUN, {rank: diverge})
    assert [process.wait() for process in processes] == [2, 2]
    said = "".join(process.output for process in processes)
    assert said.count("offramp: the loss is nan in epoch 2") == 1
    assert "Traceback" not in said


def fail() -> None:
    """Make this process fail with a full disk while the other waits for it."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    nn.parallel.DistributedDataParallel.forward = full  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize("rank", [0, 1])
def test_the_other_process_does_not_wait_for_one_that_failed(place: Path, rank: int) -> None:
    processes = two(place, STUDENTS_RUN, {rank: fail})
    assert processes[rank].wait() == 2
    assert processes[1 - rank].wait() > 0
    said = "".join(process.output for process in processes)
    assert said.count("offramp: ") == 1
    assert "No space left on device" in said
    assert "Traceback" not in said


def test_a_batch_that_cannot_be_shared_evenly_is_refused() -> None:
    assert [DistContext(rank, 4).share(8) for rank in (0, 3)] == [slice(0, 2), slice(6, 8)]
    with pytest.raises(RecipeError, match="batch_size 10 cannot be shared evenly by 4"):
        DistContext(0, 4).share(10)


def on_two_processes(work: Callable[..., None], *arguments: object) -> None:
    """Call `work` with a rank and `arguments` in each of two processes."""
    workers = [context.Process(target=work, args=(rank, *arguments)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        assert worker.exitcode == 0


def normalise_a_share(rank: int, place: Path, shape: tuple[int, ...]) -> None:
    """In one of two processes: batch norm of half the samples, and the gradient of its input."""
    distributed.init_process_group(
        "gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2
    )
    torch.manual_seed(0)
    x = torch.randn(shape).chunk(2)[rank].requires_grad_()
    norm = CpuSyncBatchNorm(shape[1])
    out = norm(x)
    (out**3).sum().backward()
    assert x.grad is not None
    kept = {"out": out.detach(), "grad": x.grad, "mean": norm.running_mean, "var": norm.running_var}
    save_file({name: t.contiguous() for name, t in kept.items()}, place / f"{rank}.safetensors")
    distributed.destroy_process_group()


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 4, 5)])
def test_batch_norm_of_two_halves_equals_that_of_the_batch(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    on_two_processes(normalise_a_share, tmp_path, shape)
    halves = [load_file(tmp_path / f"{rank}.safetensors") for rank in range(2)]

    torch.manual_seed(0)
    x = torch.randn(shape).requires_grad_()
    norm = nn.BatchNorm1d(3) if len(shape) == 2 else nn.BatchNorm2d(3)
    out = norm(x)
    (out**3).sum().backward()
    for name, whole in (("out", out), ("grad", x.grad)):
        torch.testing.assert_close(torch.cat([half[name] for half in halves]), whole)
    for half in halves:
        torch.testing.assert_close(half["mean"], norm.running_mean)
        torch.testing.assert_close(half["var"], norm.running_var)


def gradients(place: Path, rank: int, count: int) -> torch.Tensor:
    """The gradients of the first batch of OtO with all heads, in float64, in process `rank` of `count`."""
    torch.manual_seed(0)
    oto = load_recipe(str(place / "student.toml")).model_dump()
    oto["network"]["exits"], oto["objective"]["method"] = [1, 2, 3, 4], "oto"
    recipe = Recipe.model_validate(oto)
    data = load_dataset(recipe.data, place)
    teacher = build_network("resnet10", 4, 10, [1, 2, 3, 4]).eval()
    images = DeviceDataset.of(data.train, torch.device("cpu"))
    step = build_step(recipe, data, teacher, place, images.labels).double().train()
    dist = DistContext(rank, count)
    if count > 1:
        sync_batch_norm(step, torch.device("cpu"))
    share = dist.share(32)
    batch = next(images.shuffled(32, recipe.data, seed=0, epoch=0, share=share))
    parallel = dist.parallel(step)  # must live until the gradients are computed
    parallel(*batch).backward()
    return torch.cat([p.grad.flatten() for p in step.student.parameters() if p.grad is not None])


def gradients_of_a_share(rank: int, place: Path) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{place}/gather", rank=rank, world_size=2
    )
    save_file({"all": gradients(place, rank, 2)}, place / f"{rank}.safetensors")
    distributed.destroy_process_group()


def test_the_gradients_of_two_halves_equal_those_of_the_batch(place: Path) -> None:
    on_two_processes(gradients_of_a_share, place)
    whole = gradients(place, 0, 1)
    for rank in range(2):
        half = load_file(place / f"{rank}.safetensors")["all"]
        assert float((half - whole).norm() / whole.norm()) < 1e-6  # the loss is in float32
