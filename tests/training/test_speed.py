"""bfloat16 is used where a processor has it; `--compile` changes no result and is refused where it cannot
work; freed memory is kept."""

from __future__ import annotations

import functools
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.runs import RECIPE
from training.checkpoint import load_checkpoint
from training.errors import RecipeError
from training.models.build import build_network
from training.models.multi_exit import Normalize
from training.objectives.criterion import Batch
from training.objectives.exits import ExitCriterion
from training.recipes.files import load_recipe
from training.recipes.schema import ExitObjective
from training.run import run_recipe
from training.speed import arithmetic
from training.step import Step


def run(place: Path, compiled: bool) -> None:
    place.mkdir()
    text = RECIPE.replace("epochs = 4", "epochs = 1").replace("width = 4", "width = 4\nexits = [4]")
    (place / "recipe.toml").write_text(text)
    run_recipe(
        load_recipe(str(place / "recipe.toml")),
        runs=place / "runs",
        data_root=place,
        device="cpu",
        compiled=compiled,
        say=lambda _: None,
    )


def test_a_compiled_run_ends_with_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path / "eager", compiled=False)
    counted = torch._dynamo.utils.counters["frames"]
    before = counted["ok"]
    # torch.compile without the minutes of the C++ compiler.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    run(tmp_path / "compiled", compiled=True)
    assert counted["ok"] > before
    eager, _ = load_checkpoint(tmp_path / "eager" / "runs" / "tiny")
    compiled, _ = load_checkpoint(tmp_path / "compiled" / "runs" / "tiny")
    for name, tensor in eager.state_dict().items():
        assert torch.equal(tensor, compiled.state_dict()[name]), name


def test_without_a_compiler_it_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_found(*_: object, **__: object) -> None:
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand how to get one")

    monkeypatch.setattr(torch, "compile", none_found)
    with pytest.raises(RecipeError, match=r"needs a compiler .*found\); leave it out") as caught:
        run(tmp_path / "compiled", compiled=True)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "compiled" / "runs").exists()


def losses(precision: str) -> list[float]:
    """The losses of four steps."""
    torch.manual_seed(0)
    normalize = Normalize((0.5,) * 3, (0.25,) * 3)
    network = build_network("vgg8", 4, 10, [1, 2, 3, 4])
    step = Step(
        network, None, ExitCriterion(ExitObjective(method="cross_entropy")), normalize, precision
    ).train()
    images = torch.randint(0, 256, (4, 8, 32, 32, 3), dtype=torch.uint8)
    return [step(batch, Batch(torch.arange(8), torch.arange(8))).item() for batch in images]


@pytest.mark.parametrize(("instructions", "alike"), [({}, True), ({"avx512_bf16": True}, False)])
def test_bfloat16_is_used_where_the_processor_computes_it(
    instructions: dict[str, bool], alike: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    assert (losses("bf16") == losses("fp32")) == alike


@pytest.mark.parametrize("supported", [True, False])
def test_bfloat16_is_used_on_gpus_that_do_not_emulate_it(
    supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_supported(including_emulation: bool) -> bool:
        return supported or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    gpu = torch.device("cuda")
    assert arithmetic("bf16", gpu) == ("bf16" if supported else "fp32")
    assert arithmetic("fp32", gpu) == "fp32"


# Page faults of the fifth step, whose blocks are larger than glibc ever keeps by itself.
FAULTS = """
import resource, torch
from training.speed import keep_freed_memory
if {kept}:
    keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for step in range(5):
    before = faults()
    blocks = [torch.ones(12_000_000) for _ in range(4)]
    del blocks
print(faults() - before)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are"
)
def test_memory_that_a_step_frees_is_kept_for_the_next() -> None:
    def faults(kept: bool) -> int:
        done = subprocess.run(
            [sys.executable, "-c", FAULTS.format(kept=kept)], capture_output=True, check=True
        )
        return int(done.stdout)

    assert faults(kept=True) < faults(kept=False) / 10
