"""From recorded requests and feedback to a policy, which is proposed, and applied only if asked."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from numpy.typing import NDArray

from exports.bundle.reader import Bundle
from exports.stage_runner import StageRunner
from exports.tuning.search import full_depth
from exports.tuning.simulation import simulate
from serving.settings import Settings
from tests.commands import CommandResult, call
from tests.serving.live import live
from tests.serving.requests import PNG
from tests.serving.server_command import API_KEY
from tests.serving.tiny_bundle import write_tiny_bundle

POLICY = "/v1/models/tiny/policy"
# The tiny network's weights are random: its exits agree seldom.
GOAL = ("--max-accuracy-drop", "90")


@dataclass(frozen=True)
class Recorded:
    """A live server, the directory where it recorded the images, and its bundle."""

    http: httpx.Client
    url: str
    directory: Path
    bundle: Path

    def policy(self) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(POLICY).json()
        return found

    def tune(self, *arguments: object) -> CommandResult:
        return call("tune", self.bundle, "--from", self.directory, *GOAL, *arguments)


@contextmanager
def recorded(
    tmp_path: Path, pngs: list[bytes], labels: list[int], **settings: Any
) -> Iterator[Recorded]:
    """A server that has answered every image, and got a label for the first ones."""
    bundle, directory = write_tiny_bundle(tmp_path / "tiny"), tmp_path / "records"
    recording = {"record": directory, "record_images": True, "record_full_share": 0.0}
    every = Settings(bundles=(bundle,), workers=1, **recording, **settings)
    with live(every) as (port, _), httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
        ids = [
            http.post("/v1/classify", content=png, headers=PNG).headers["X-Request-ID"]
            for png in pngs
        ]
        for request_id, label in zip(ids, labels, strict=False):
            done = http.post("/v1/feedback", json={"id": request_id, "label": label})
            assert done.status_code == 200
        http.post("/v1/feedback", json={"id": "none", "label": 0})  # after all that is recorded
        yield Recorded(http, str(http.base_url), directory, bundle)


@pytest.fixture(scope="module")
def truth(bundle: Bundle, images: NDArray[Any]) -> list[int]:
    """What all exits together answer."""
    logits = StageRunner(bundle.stages).logits(images)
    found = simulate(full_depth(3), logits, bundle.manifest.scaling).predictions
    labels: list[int] = found.tolist()
    return labels


@pytest.fixture
def server(tmp_path: Path, pngs: list[bytes], truth: list[int]) -> Iterator[Recorded]:
    with recorded(tmp_path, pngs, truth) as server:
        yield server


def test_a_policy_is_proposed_with_its_expected_effect_and_nothing_is_changed(
    server: Recorded, tmp_path: Path
) -> None:
    before = (server.bundle / "policy.json").read_bytes(), server.policy()
    result = server.tune("--json", tmp_path / "out.json")
    assert result.code == 0, result.err
    words = " ".join(result.out.split())
    assert "40 images recorded, 0 with all exits" in words
    assert "the 40 of them with a label used" in words
    assert "Expected effect on 40 samples, with 95 % intervals" in words
    assert "Nothing is changed: --write writes the policy, --apply URL puts it in force." in words
    for row in ("accuracy %", "mean M MACs", "mean ms", "leave at each exit, %"):
        assert row in result.out
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["traffic"]["recorded"] == content["traffic"]["labelled"] == 40
    assert (content["written"], content["applied"]) == (False, None)
    effect = content["effect"]
    for which in ("in_force", "proposed"):
        assert set(effect[which]) >= {"accuracy", "exit_shares", "mean_macs", "mean_ms"}
    change = effect["proposed"]["accuracy"] - effect["in_force"]["accuracy"]
    assert effect["accuracy_change"] == pytest.approx(change, abs=1e-3)
    assert ((server.bundle / "policy.json").read_bytes(), server.policy()) == before


def test_without_labels_the_agreement_with_full_depth_is_used(
    tmp_path: Path, pngs: list[bytes]
) -> None:
    with recorded(tmp_path, pngs, [1, 2]) as server:
        result = server.tune()
    words = " ".join(result.out.split())
    assert "run again" in words
    assert "2 images have a label that can be used, and this goal takes 4" in words
    assert "accuracy is the agreement of 40 images with the ensemble" in words
    assert "agreement %" in words


def test_the_policy_is_put_in_force_on_the_server_if_asked(
    server: Recorded, tmp_path: Path
) -> None:
    before = server.policy()
    stored = (server.bundle / "policy.json").read_bytes()
    result = server.tune("--apply", server.url, "--json", tmp_path / "out.json")
    assert result.code == 0, result.err
    assert result.out.endswith(f"In force on {server.url}.\n")
    after = server.policy()
    assert after["revision"] == before["revision"] + 1
    content = json.loads((tmp_path / "out.json").read_text())
    assert after["policy"] == content["chosen"]["policy"]
    assert content["others"]["in force before"]["policy"] == before["policy"]
    assert content["applied"] == server.url
    assert (server.bundle / "policy.json").read_bytes() == stored


def test_it_is_compared_with_the_policy_in_force_and_not_with_the_bundles(
    server: Recorded, tmp_path: Path
) -> None:
    other = {"thresholds": [0.3, 0.2], "max_exit": 3}
    assert server.http.put(POLICY, json=other).status_code == 200
    server.tune("--apply", server.url, "--json", tmp_path / "out.json")
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["others"]["in force before"]["policy"]["thresholds"] == [0.3, 0.2]


def test_the_policy_is_written_into_the_bundle_if_asked(server: Recorded) -> None:
    before = server.policy()
    result = server.tune("--write")
    assert result.out.endswith(f"Written to {server.bundle / 'policy.json'}.\n")
    stored = json.loads((server.bundle / "policy.json").read_text())
    assert stored["thresholds"] != before["policy"]["thresholds"]
    assert server.policy() == before


def test_out_of_bounds_nothing_is_applied_and_the_exit_code_is_3(
    server: Recorded, tmp_path: Path
) -> None:
    before = (server.bundle / "policy.json").read_bytes(), server.policy()
    applying = ("--apply", server.url, "--write", "--json", tmp_path / "out.json")
    result = server.tune(*applying, "--within", "accuracy-drop=0.5")
    assert result.code == 3
    assert result.err.startswith("offramp: The proposed policy is not applied: it may be ")
    assert result.err.count("\n") == 1
    assert "Expected effect on 40 samples" in result.out
    content = json.loads((tmp_path / "out.json").read_text())
    assert (content["written"], content["applied"]) == (False, None)
    assert ((server.bundle / "policy.json").read_bytes(), server.policy()) == before
    result = server.tune(*applying, "--within", "accuracy-drop=100,cost-change=5")
    assert result.code == 0, result.err
    assert server.policy() != before[1]


def test_the_key_is_taken_from_the_environment(
    tmp_path: Path, pngs: list[bytes], truth: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded(tmp_path, pngs, truth, api_key=API_KEY) as server:
        result = server.tune("--apply", server.url)
        assert result.code == 2
        assert result.err.startswith("offramp: This needs the server's key")
        (tmp_path / "key").write_text(f"{API_KEY}\n")
        monkeypatch.setenv("OFFRAMP_API_KEY_FILE", str(tmp_path / "key"))
        assert server.tune("--apply", server.url).code == 0


def test_a_policy_that_was_changed_in_the_meantime_stays(
    server: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exports.tuning import run

    def slowly(*arguments: Any, **options: Any) -> Any:
        server.http.put(POLICY, json={"thresholds": [0.3, 0.2], "max_exit": 3})
        return tuning(*arguments, **options)

    tuning = run.run_tuning
    monkeypatch.setattr(run, "run_tuning", slowly)
    result = server.tune("--apply", server.url)
    assert result.code == 2
    assert "revision" in result.err
    assert server.policy()["policy"]["thresholds"] == [0.3, 0.2]


def test_what_cannot_be_applied_is_refused_in_one_sentence(
    server: Recorded, tmp_path: Path
) -> None:
    other = write_tiny_bundle(tmp_path / "other", version="2")
    for arguments, says in (
        ((server.bundle, "--apply", server.url), "--write and --apply go with --from"),
        ((server.bundle, "--from", server.directory, "--within", "cost-change=1"), "--within goes"),
        (
            (server.bundle, "--from", server.directory, "--write", "--dry-run"),
            "--dry-run does not go",
        ),
        (
            (other, "--from", server.directory, "--apply", server.url),
            f"{server.url} serves another tiny (version 1, fp32) than this bundle (version 2, fp32)",
        ),
        (
            (server.bundle, "--from", server.directory, "--apply", "http://127.0.0.1:9"),
            "cannot be reached",
        ),
        (
            (server.bundle, "--from", server.directory, "--apply", "nonsense"),
            "nonsense is not the address of a server",
        ),
    ):
        result = call("tune", *arguments)
        assert result.refused_in_one_sentence, result.err
        assert says in result.err
