"""`offramp inspect` and `offramp pack`, and packed bundles in place of directories."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from exports.bundle.reader import load_bundle, sha256
from exports.bundle.resolve import CIFAR100
from tests.commands import call
from tests.exports.policies import CERTIFICATE, PRECISION_CERTIFICATE
from tests.servers import started
from tests.serving.tiny_bundle import stage_bytes, write_tiny_bundle
from tests.serving.tiny_gears import write_tiny_gears


@pytest.fixture(autouse=True)
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def certified(tmp_path: Path) -> Path:
    """A bundle with a certified policy and a whole-network graph."""
    path = write_tiny_bundle(tmp_path / "certified")
    policy = load_bundle(path).policy.model_copy(update={"certificate": CERTIFICATE})
    (path / "policy.json").write_text(policy.model_dump_json())
    (path / "exit1.onnx").write_bytes(stage_bytes(1))
    manifest = json.loads((path / "manifest.json").read_text())
    digest = sha256(stage_bytes(1))
    manifest["graphs"] = [{"kind": "exit", "exit": 1, "file": "exit1.onnx", "sha256": digest}]
    (path / "manifest.json").write_text(json.dumps(manifest))
    return path


def test_inspect_shows_everything_on_one_screen() -> None:
    done = call("inspect", CIFAR100)
    assert done.code == 0
    assert len(done.out.splitlines()) <= 30
    assert max(map(len, done.out.splitlines())) <= 100
    bundle = load_bundle(CIFAR100)
    for entry in bundle.manifest.exits:
        row = next(line for line in done.out.splitlines() if entry.file in line)
        assert f"{entry.test.single:.2f}/{entry.test.running:.2f}" in row
        assert f"{entry.held_out.single:.2f}/{entry.held_out.running:.2f}" in row
        assert f"{entry.temperature:.2f}/{entry.running_temperature:.2f}" in row
    words = " ".join(done.out.split())
    for threshold in bundle.policy.thresholds:
        assert f"{threshold:g}" in words
    assert "every graph opened in onnxruntime" in words


def test_inspect_verifies_the_gears(tmp_path: Path) -> None:
    path = write_tiny_bundle(tmp_path / "geared")
    assert json.loads(call("inspect", path, "--json").out)["gears"] is None
    assert call("tune", path, "--gears").code == 0
    found = json.loads(call("inspect", path, "--json").out)
    assert found["gears_verified"] is True
    assert "gears verified." in " ".join(call("inspect", path).out.split())
    write_tiny_gears(path)
    assert json.loads(call("inspect", path, "--json").out)["gears_verified"] is False


def test_inspect_says_what_the_certificate_promises(certified: Path) -> None:
    words = " ".join(call("inspect", certified).out.split())
    assert CERTIFICATE.sentence in words
    assert "exit1.onnx (exit, " in words


def test_inspect_says_what_is_promised_of_the_answers(certified: Path) -> None:
    assert json.loads(call("inspect", certified, "--json").out)["precision_certificate"] is None
    policy = load_bundle(certified).policy.model_copy(
        update={"reject_below": 0.75, "precision_certificate": PRECISION_CERTIFICATE}
    )
    (certified / "policy.json").write_text(policy.model_dump_json())
    words = " ".join(call("inspect", certified).out.split())
    assert f"precision not verified here. {PRECISION_CERTIFICATE.sentence}" in words
    assert "at least 95 % of the answers with a confidence from 0.75 are right" in words
    found = json.loads(call("inspect", certified, "--json").out)
    assert found["precision_certificate"] == PRECISION_CERTIFICATE.sentence


def test_inspect_as_json_has_it_all(certified: Path) -> None:
    (certified / "notes.txt").write_text("mine")
    found = json.loads(call("inspect", certified, "--json").out)
    bundle = load_bundle(certified)
    assert found["manifest"] == json.loads(bundle.manifest.model_dump_json())
    assert found["policy"] == json.loads(bundle.policy.model_dump_json())
    assert found["certificate"] == CERTIFICATE.sentence
    assert (found["verified"], found["opened"]) == (True, True)
    assert found["unknown"] == ["notes.txt"]
    assert found["sizes"]["exit1.onnx"] == len(stage_bytes(1))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        # An ONNX file with a version and nothing else.
        (b"\x08\x09", "exit1.onnx is not an ONNX graph that onnxruntime can run"),
        (stage_bytes(2), "exit1.onnx is not an ONNX graph that onnxruntime can run"),
        (stage_bytes(1, classes=4), "exit1.onnx gives logits of the shape (2, 4), not (2, 7)"),
    ],
)
def test_inspect_refuses_a_graph_that_is_not_what_the_manifest_says(
    certified: Path, content: bytes, says: str
) -> None:
    (certified / "exit1.onnx").write_bytes(content)
    manifest = json.loads((certified / "manifest.json").read_text())
    manifest["graphs"][0]["sha256"] = sha256(content)
    (certified / "manifest.json").write_text(json.dumps(manifest))
    done = call("inspect", certified)
    assert done.refused_in_one_sentence
    assert says in done.err


def test_names_in_a_bundle_are_neither_markup_nor_commands(certified: Path) -> None:
    text = (certified / "manifest.json").read_text()
    hostile = json.dumps("[red]ant[/red][/] \x1b[2J\nverified")
    (certified / "manifest.json").write_text(text.replace('"ant"', hostile))
    out = call("inspect", certified).out
    assert "[red]ant[/red][/]" in out
    assert "\x1b" not in out
    assert sum(line.startswith("verified") for line in out.splitlines()) == 1


LIGHT = (
    "import sys\n"
    "for name in ('onnxruntime', 'torch', 'onnx', 'matplotlib'): sys.modules[name] = None\n"
    "from offramp.cli import main\n"
    "main()"
)


def test_inspect_and_pack_work_in_the_light_install(certified: Path, tmp_path: Path) -> None:
    def light(*arguments: object) -> str:
        command = [sys.executable, "-c", LIGHT, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    words = " ".join(light("inspect", certified).split())
    assert "graphs not opened, since onnxruntime is not installed" in words
    light("pack", certified, "-o", tmp_path / "light.zip")
    assert json.loads(light("inspect", tmp_path / "light.zip", "--json"))["opened"] is False


def test_pack_gives_the_file_and_what_to_put_behind_its_address(
    certified: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = call("pack", certified)
    packed = tmp_path / "tiny-1.offramp.zip"
    assert packed.name in done.out
    assert f"#sha256={sha256(packed.read_bytes())}" in done.out
    again = call("pack", packed, "-o", "again.zip")
    assert again.code == 0
    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()
    assert call("pack", packed).refused_in_one_sentence
    assert call("pack", certified, "-o", "no/such/place.zip").refused_in_one_sentence


def test_pack_refuses_a_tampered_bundle(certified: Path, tmp_path: Path) -> None:
    (certified / "exit1.onnx").write_bytes(b"other")
    done = call("pack", certified, "-o", tmp_path / "out.zip")
    assert done.refused_in_one_sentence
    assert "exit1.onnx is damaged" in done.err
    assert not (tmp_path / "out.zip").exists()


def test_classify_takes_a_packed_bundle(
    bundle_path: Path, tmp_path: Path, pngs: list[bytes]
) -> None:
    (tmp_path / "a.png").write_bytes(pngs[0])
    call("pack", bundle_path, "-o", tmp_path / "tiny.zip")
    answers = [
        call("classify", tmp_path / "a.png", "--bundle", bundle, "--json").out
        for bundle in (bundle_path, tmp_path / "tiny.zip")
    ]
    assert answers[0] == answers[1] != ""
    (tmp_path / "bad.zip").write_bytes(b"no zip")
    done = call("classify", tmp_path / "a.png", "--bundle", tmp_path / "bad.zip")
    assert done.refused_in_one_sentence


def test_serve_takes_a_packed_bundle(bundle_path: Path, tmp_path: Path) -> None:
    call("pack", bundle_path, "-o", tmp_path / "tiny.zip")
    command = [sys.executable, "-m", "offramp.cli", "serve", "tiny.zip", "--port", "0"]
    with (
        started(command, tmp_path) as server,
        urllib.request.urlopen(f"{server.url}/v1/models/tiny") as answer,
    ):
        assert json.loads(answer.read())["name"] == "tiny"


def test_the_environment_can_hold_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    from serving.settings import read_settings

    address = f"https://example.org:8443/b.zip#sha256={'0' * 64}"
    monkeypatch.setenv("OFFRAMP_BUNDLES", f"{address} local.zip")
    assert read_settings().bundles == (address, "local.zip")
    monkeypatch.setenv("OFFRAMP_BUNDLES", os.pathsep.join(["a", "b c"]))
    assert read_settings().bundles == ("a", "b c")


def test_pack_into_a_directory_that_is_not_there_names_the_file(
    certified: Path, tmp_path: Path
) -> None:
    done = call("pack", certified, "-o", tmp_path / "no" / "x.zip")
    assert done.refused_in_one_sentence
    assert f"{tmp_path / 'no' / 'x.zip'} cannot be written: there is no directory" in done.err


def test_inspect_lists_files_whose_names_are_no_text(certified: Path) -> None:
    (certified / os.fsdecode(b"\xff.txt")).touch()
    assert json.loads(call("inspect", certified, "--json").out)["unknown"] == ["\\xff.txt"]
