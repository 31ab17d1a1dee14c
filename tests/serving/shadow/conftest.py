from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exports.bundle.manifest import CALIBRATION, MANIFEST
from exports.bundle.reader import Table, sha256, write_table
from serving.service import Service
from serving.settings import Settings
from serving.shadow import monitor
from tests.serving.conftest import Client, running
from tests.serving.requests import CLASSIFY, as_raw
from tests.serving.stages import until
from tests.serving.tiny_bundle import EXITS, LABELS, write_tiny_bundle

SHADOW = "/v1/models/tiny/shadow"
PUT = "/v1/models/tiny/policy"
STATUS = "status"
TABLE_SAMPLES = 1_000


def promise_agreement(bundle: Path) -> Path:
    """Replace the calibration table of `bundle`: on it all exits agree, and half of the samples leave at each
    of the first two. The network itself agrees with nothing."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(LABELS), TABLE_SAMPLES)
    logits = np.zeros((EXITS, TABLE_SAMPLES, len(LABELS)), np.float32)
    sure = np.full(TABLE_SAMPLES, 20.0)
    for exit_ in range(EXITS):
        height = np.where(np.arange(TABLE_SAMPLES) % 2, sure, 0.1) if exit_ == 0 else sure
        logits[exit_, np.arange(TABLE_SAMPLES), labels] = height
    write_table(bundle / CALIBRATION, Table(logits, labels), "held_out")
    manifest = json.loads((bundle / MANIFEST).read_text())
    manifest["calibration"]["sha256"] = sha256((bundle / CALIBRATION).read_bytes())
    manifest["calibration"]["samples"] = TABLE_SAMPLES
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    return bundle


@pytest.fixture
def promising(tmp_path: Path) -> Path:
    """A bundle whose exits promise to agree with full depth, and do not."""
    return promise_agreement(write_tiny_bundle(tmp_path / "tiny"))


@pytest.fixture
def checked(promising: Path) -> Callable[..., Settings]:
    """The settings of a server that checks every image of `promising`, with others changed."""

    def changed(**others: Any) -> Settings:
        return Settings(
            **{
                "bundles": (promising,),
                "workers": 1,
                "shadow_share": 1.0,
                "shadow_max_work": 1.0,
                **others,
            }
        )

    return changed


@pytest.fixture
def client(checked: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A server whose guard acts when a test calls `update`."""
    monkeypatch.setattr(monitor, "INTERVAL_S", 3600.0)
    with running(checked()) as client:
        yield client


@pytest.fixture
def service(client: Client) -> Service:
    state: Service = client.app.state.service
    return state


def checks(service: Service) -> int:
    """The shadows of the first model so far."""
    assert service.shadow is not None
    found = service.shadow.status(service.models.get(None))
    return 0 if found is None else sum(one.shadows for one in found.exits)


def break_promises(client: Client, pngs: list[bytes], update: bool = True) -> None:
    """Send images until both exits have shown that they do not agree, and let the guard act."""
    service: Service = client.app.state.service

    async def send() -> None:
        for file in pngs:
            before = checks(service)
            answer = await client.http.post(CLASSIFY, **as_raw(file))
            left = sum(found["exit"] < 3 for found in answer.json()["predictions"])
            await until(lambda wanted=before + left: checks(service) >= wanted)  # type: ignore[misc]
        if update:
            await service.shadow.update()  # type: ignore[union-attr]

    client.runner.run(send())
