"""`offramp tune` changes nothing that it must not change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from exports.bundle.resolve import CIFAR100
from tests.commands import call
from tests.exports.bundles import INT8


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the bundle with four exits."""
    return Path(shutil.copytree(INT8, tmp_path / "bundle"))


def test_a_json_file_that_cannot_be_written_keeps_the_old_policy(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Path.write_bytes

    def refused(path: Path, content: bytes) -> int:
        if path.name.startswith("out.json"):
            raise PermissionError(13, "Permission denied")
        return write(path, content)

    before = (bundle / "policy.json").read_bytes()
    monkeypatch.setattr(Path, "write_bytes", refused)
    result = call("tune", bundle, "--max-accuracy-drop", "1", "--json", bundle.parent / "out.json")
    assert result.code == 2
    assert "out.json cannot be written (Permission denied)" in result.err
    assert (bundle / "policy.json").read_bytes() == before


def test_an_embedded_bundle_stays_as_it_is() -> None:
    before = (CIFAR100 / "policy.json").read_bytes()
    result = call("tune", "cifar100-lite0", "--max-accuracy-drop", "5")
    assert result.refused_in_one_sentence, result.err + result.out
    assert f"copy {CIFAR100} to change its policy" in result.err
    assert (CIFAR100 / "policy.json").read_bytes() == before
