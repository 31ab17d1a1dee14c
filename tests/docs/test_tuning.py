"""The commands and the program of docs/guide/tuning.md run as written."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from exports.bundle.certificate import Certificate, PrecisionCertificate
from exports.bundle.reader import read_manifest, read_policy
from exports.bundle.resolve import CIFAR100
from offramp.cli import app
from tests.commands import call

DOCUMENT = (Path(__file__).parents[2] / "docs" / "guide" / "tuning.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)


def test_every_command_and_the_program_run_as_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CIFAR100, "BUNDLE")
    images = np.random.default_rng(0).integers(0, 256, (200, 32, 32, 3), np.uint8)
    (program,) = blocks("python")
    exec(program, {"images": images})
    commands = [line for block in blocks("bash") for line in block.splitlines()]
    assert len(commands) == 10
    for command in commands:
        done = call(*shlex.split(command)[1:])
        assert done.code == 0, done.err
    assert Path("tuning.json").stat().st_size > 1000
    assert Path("tuning.png").stat().st_size > 1000
    certificate = read_policy(Path("BUNDLE"), read_manifest(CIFAR100)).certificate
    assert certificate is not None
    assert certificate.target == "agreement"


def test_every_option_and_every_field_of_a_certificate_is_explained() -> None:
    root: Any = typer.main.get_command(app)
    fields = {*Certificate.model_fields, *PrecisionCertificate.model_fields}
    options = {o for p in root.commands["tune"].params for o in p.opts if o.startswith("--")}
    for name in (options - {"--help"}) | fields:
        assert f"`{name}`" in DOCUMENT, name
