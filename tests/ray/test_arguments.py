"""Arguments of the application, and which are refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from offramp.errors import OfframpError
from serving.ray.app import build
from serving.ray.arguments import read_arguments
from tests.commands import call


def test_replicas_assume_that_they_are_open_to_the_network() -> None:
    assert read_arguments({}).read_settings().host == "0.0.0.0"
    settings = read_arguments({"settings": {"host": "127.0.0.1", "threads": 2}}).read_settings()
    assert (settings.host, settings.threads) == ("127.0.0.1", 2)


def test_without_bundles_the_embedded_ones_are_served() -> None:
    assert read_arguments({}).bundles == ("groceries", "cifar100-lite0")


def test_the_last_scaling_applies_to_all_further_stages() -> None:
    stages = [{"max_replicas": 8}, {"num_gpus": 0.25}]
    arguments = read_arguments({"form": "stages", "stages": stages})
    assert arguments.stage(1).max_replicas == 8
    assert arguments.stage(2) == arguments.stage(5)
    assert arguments.stage(5).num_gpus == 0.25


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"form": "shards"}, "args.form"),
        ({"replica": {}}, "args.replica"),
        ({"replicas": {"max_replicas": 0}}, "args.replicas.max_replicas"),
        ({"policies": {"net": {"max_exit": 3}}}, "args.policies.net.thresholds"),
        ({"settings": {"threads": 0}}, "threads"),
        ({"settings": {"watch": True, "repository": "."}}, "bundles"),
        ({"settings": {"record": "records"}}, "recorded on Ray"),
        ({"settings": {"jobs": "jobs"}}, "not run on Ray"),
        ({"settings": {"canary": "mine-2"}}, "no canaries on Ray"),
        ({"form": "stages", "bundles": ["/does/not/exist"]}, "/does/not/exist"),
    ],
)
def test_invalid_arguments_are_refused_in_one_sentence(args: dict[str, object], named: str) -> None:
    with pytest.raises(OfframpError, match=r"\.$") as caught:
        build(args)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_refuses_a_directory_that_is_not_a_bundle(tmp_path: Path) -> None:
    assert call("serve", "--ray", "--form", "stages", tmp_path).refused_in_one_sentence
