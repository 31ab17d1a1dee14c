"""The deployment files are well formed and have the right content; no engine is needed."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.settings import Settings
from tests.debian import require

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = ROOT / "docker-compose.yml"
OVERLAYS = (DOCKER / "compose.admin.yml", DOCKER / "compose.train-gpu.yml")
PROFILES = ("gpu", "train", "scale")
DCLINT = "dclint@3.1.0"


def run(*command: str | Path) -> str:
    """Run `command` in the repository; it must succeed."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services as podman-compose reads them, anchors and variables resolved."""
    require("podman", "podman")
    tool = Path(sys.executable).with_name("podman-compose")
    profiles = [f"--profile={name}" for name in PROFILES]
    found: dict[str, Any] = yaml.safe_load(run(tool, "-f", COMPOSE, *profiles, "config"))
    return dict(found["services"])


def test_the_dockerfile_passes_hadolint() -> None:
    run(
        Path(sys.executable).with_name("hadolint"),
        "-c",
        DOCKER / "hadolint.yaml",
        DOCKER / "Dockerfile",
    )


def test_the_compose_files_pass_dclint() -> None:
    npx = require("npm", "npx")
    options = ("--config", DOCKER / "dclint.yaml", "--max-warnings", "0")
    run(npx, "--yes", DCLINT, *options, COMPOSE, *OVERLAYS)


def test_only_the_proxy_is_published_beyond_loopback(services: dict[str, Any]) -> None:
    published = {
        name: port for name, service in services.items() for port in service.get("ports", [])
    }
    open_ones = {name for name, port in published.items() if not port.startswith("127.0.0.1:")}
    assert open_ones == {"proxy"}
    assert set(published) >= {"serving", "serving-gpu", "prometheus", "grafana"}


def test_every_service_has_limits_and_few_privileges(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"]["memory"], name
        assert service["logging"]["options"]["max-size"], name
        assert service["restart"] == ("no" if name == "trainer" else "unless-stopped"), name


def test_services_not_started_by_default_are_in_profiles() -> None:
    content = yaml.safe_load(COMPOSE.read_text("utf-8"))
    profiles = {name: service.get("profiles", []) for name, service in content["services"].items()}
    assert profiles == {
        "serving": [],
        "prometheus": [],
        "grafana": [],
        "serving-gpu": ["gpu"],
        "replica": ["scale"],
        "proxy": ["scale"],
        "trainer": ["train"],
    }


def test_the_settings_in_compose_exist(services: dict[str, Any]) -> None:
    known = {f"OFFRAMP_{name.upper()}" for name in Settings.model_fields}
    for name in ("serving", "serving-gpu", "replica"):
        assert set(services[name]["environment"]) <= known
    admin = yaml.safe_load((DOCKER / "compose.admin.yml").read_text("utf-8"))
    assert set(admin["services"]["serving"]["environment"]) <= known


def test_servers_have_as_many_workers_as_cores_of_cpu_time(services: dict[str, Any]) -> None:
    for name in ("serving", "serving-gpu", "replica"):
        limits = services[name]["deploy"]["resources"]["limits"]
        assert services[name]["environment"]["OFFRAMP_WORKERS"] == str(limits["cpus"]), name


def test_the_admin_key_is_never_committed() -> None:
    admin = yaml.safe_load((DOCKER / "compose.admin.yml").read_text("utf-8"))
    file = Path(admin["secrets"]["admin-key"]["file"])
    assert f"/{file.as_posix()}" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_containers_get_more_time_to_stop_than_servers_need(services: dict[str, Any]) -> None:
    service = services["serving"]
    grace = int(service["environment"]["OFFRAMP_GRACE_SECONDS"])
    assert int(service["stop_grace_period"].removesuffix("s")) > grace


def test_the_gpu_overlay_only_adds_a_gpu_to_the_trainer() -> None:
    require("podman", "podman")
    tool = Path(sys.executable).with_name("podman-compose")

    def trainer(*files: Path) -> dict[str, Any]:
        named = [f"--file={file}" for file in files]
        content = yaml.safe_load(run(tool, *named, "--profile=train", "config"))
        return dict(content["services"]["trainer"])

    found = trainer(COMPOSE, DOCKER / "compose.train-gpu.yml")
    (device,) = found["deploy"]["resources"].pop("reservations")["devices"]
    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert found == trainer(COMPOSE)


def test_the_files_that_compose_mounts_exist(services: dict[str, Any]) -> None:
    for service in services.values():
        for volume in service.get("volumes", []):
            if volume.startswith("./"):
                assert (ROOT / volume.split(":")[0]).exists(), volume


def test_alerts_fire_when_they_should_and_only_then() -> None:
    promtool = require("prometheus", "promtool")
    run(promtool, "check", "config", DOCKER / "prometheus" / "prometheus.yml")
    run(promtool, "test", "rules", DOCKER / "prometheus" / "rules_test.yml")


def test_every_alert_is_tested_and_explained() -> None:
    rules = yaml.safe_load((DOCKER / "prometheus" / "rules.yml").read_text("utf-8"))
    alerts = [
        rule["alert"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule
    ]
    tested = (DOCKER / "prometheus" / "rules_test.yml").read_text("utf-8")
    guide = (ROOT / "docs" / "guide" / "operations.md").read_text("utf-8")
    assert len(alerts) >= 8
    for alert in alerts:
        assert f"alertname: {alert}\n        exp_alerts" in tested, alert
        assert f"`{alert}`" in guide, alert


def test_the_dashboard_matches_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCKER / "grafana"))
    module = importlib.import_module("dashboards")
    written = json.loads((DOCKER / "grafana" / "dashboards" / "offramp.json").read_text("utf-8"))
    assert written == module.dashboard()


@pytest.mark.parametrize("lock", ["serving-cpu", "serving-gpu", "training", "build"])
def test_every_package_of_an_image_is_pinned_by_hash(lock: str) -> None:
    lines = (DOCKER / "locks" / f"{lock}.txt").read_text("utf-8").splitlines()
    packages = [line for line in lines if line and line[0] not in "# "]
    assert all("==" in package and package.endswith("\\") for package in packages)
    assert sum("--hash=sha256:" in line for line in lines) >= len(packages)
    assert not any("://" in line for line in lines)


def test_the_lock_has_every_requirement_of_pyproject() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    asked = [*project["dependencies"], *project["optional-dependencies"]["cpu"]]
    locked = (DOCKER / "locks" / "serving-cpu.txt").read_text("utf-8")
    for requirement in asked:
        name = requirement.split(">=")[0].split("[")[0]
        assert f"\n{name}==" in locked, f"{name}: run make locks"


def test_the_train_script_is_valid_shell() -> None:
    run("sh", "-n", DOCKER / "train.sh")
    assert os.access(DOCKER / "train.sh", os.R_OK)
