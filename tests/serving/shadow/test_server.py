"""A server with shadow checks: what they raise and what they leave alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from exports.bundle.manifest import CALIBRATION
from exports.tuning.search import NEVER
from serving.errors import SettingsError
from serving.inference.engine import Prediction
from serving.ray.arguments import Arguments
from serving.scheduling import shadows
from serving.service import Service
from serving.settings import Settings
from tests.servers import SERVE, started
from tests.serving.api.v2.helpers import INFER, request_of
from tests.serving.conftest import Client, running
from tests.serving.live import live
from tests.serving.requests import CLASSIFY, as_json, as_raw, metrics
from tests.serving.shadow.conftest import PUT, SHADOW, STATUS, break_promises, checks
from tests.serving.stages import hold, until
from tests.serving.tiny_bundle import POLICY_DEFAULT


def exits_of(answer: httpx.Response) -> list[int]:
    assert answer.status_code == 200, answer.text
    return [prediction["exit"] for prediction in answer.json()["predictions"]]


def test_without_a_share_nothing_is_checked(
    promising: Path, pngs: list[bytes], expected: list[Prediction]
) -> None:
    with running(Settings(bundles=(promising,), workers=1)) as client:
        answer = client.post(CLASSIFY, **as_json(pngs))
        assert exits_of(answer) == [prediction.exit for prediction in expected]
        assert client.get(SHADOW).json() == {
            "sentence": "Exits are not checked: shadow_share is 0.",
            "status": None,
        }
        assert "offramp_shadows" not in metrics(client)


def test_the_status_says_what_each_exit_promises(client: Client) -> None:
    found = client.get(SHADOW).json()
    assert found["sentence"] == (
        "0 shadows since the policy was set: no exit is below its promise."
    )
    status = found["status"]
    assert (status["share"], status["max_work"], status["raises"]) == (1.0, 1.0, [])
    for number, one in enumerate(status["exits"], 1):
        assert (one["exit"], one["shadows"], one["span"]) == (number, 0, None)
        assert (one["table_agreement"], one["table_samples"]) == (1.0, 500)
        assert 0.97 < one["promised"] < 0.99
        assert one["threshold"] == one["set_threshold"] == POLICY_DEFAULT.thresholds[number - 1]
    assert client.get("/v1/models/x/shadow").status_code == 404


def test_a_broken_promise_raises_the_thresholds(
    client: Client,
    pngs: list[bytes],
    expected: list[Prediction],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert {1, 2, 3} == {prediction.exit for prediction in expected}
    break_promises(client, pngs)
    assert set(exits_of(client.post(CLASSIFY, **as_json(pngs)))) == {3}
    policy = client.get(PUT).json()
    assert policy["policy"]["thresholds"] == [NEVER, NEVER]
    assert policy["revision"] == 2
    found = client.get(SHADOW).json()
    assert (
        "the threshold of exits 1, 2 was raised; put a policy to replace revision 2."
        in (found["sentence"])
    )
    first, second = found[STATUS]["exits"]
    assert (first["threshold"], first["set_threshold"]) == (NEVER, POLICY_DEFAULT.thresholds[0])
    assert first["span"] is None
    assert {one["exit"] for one in found[STATUS]["raises"]} == {1, 2}
    assert "exit 1 was closed, its threshold was 0.6: of its last" in caplog.text
    shown = metrics(client)
    assert 'offramp_threshold_raises_total{exit="1",model="tiny"} 1.0' in shown
    assert f'offramp_shadows_total{{agrees="false",exit="2",model="tiny"}} {second["shadows"]}' in (
        shown.replace(".0\n", "\n")
    )
    assert 'offramp_policy_revision{model="tiny"} 2.0' in shown


def test_answers_are_the_same_and_every_form_of_request_is_checked(
    client: Client, service: Service, pngs: list[bytes], expected: list[Prediction]
) -> None:
    early = [number for number, prediction in enumerate(expected) if prediction.exit < 3]
    one = early[0]

    async def send() -> None:
        raw = await client.http.post(CLASSIFY, **as_raw(pngs[one]))
        assert raw.json()["predictions"][0]["exit"] == expected[one].exit
        await until(lambda: checks(service) == 1)
        await client.http.post("/v1/classify/stream", **as_raw(pngs[one]))
        await until(lambda: checks(service) == 2)
        await client.http.post(INFER, json=request_of([pngs[one]]))
        await until(lambda: checks(service) == 3)
        await client.http.post(f"{CLASSIFY}?priority=low", **as_raw(pngs[one]))
        await until(lambda: checks(service) == 4)

    client.runner.run(send())


@pytest.mark.parametrize(
    "query", ["threshold=0", "max_exit=1", "deadline_ms=10000", "mode=exit", "reject_below=0.5"]
)
def test_requests_with_options_of_their_own_are_not_checked(
    client: Client, service: Service, pngs: list[bytes], query: str
) -> None:
    observed: list[object] = []
    service.shadow._add = lambda *found: observed.append(found)  # type: ignore[union-attr,method-assign]

    async def send() -> None:
        await client.http.post(f"{CLASSIFY}?{query}", **as_json(pngs[:8]))
        # One that is checked comes after them.
        for file in pngs[-3:]:
            await client.http.post(CLASSIFY, **as_raw(file))
        await until(lambda: bool(observed))

    client.runner.run(send())
    assert len(observed) <= 3


def test_a_table_that_cannot_be_read_leaves_a_model_unchecked(
    checked: Callable[..., Settings], promising: Path, pngs: list[bytes]
) -> None:
    with running(checked()) as client:
        (promising / CALIBRATION).write_bytes(b"")
        client.put(PUT, json=POLICY_DEFAULT.model_dump(mode="json"))
        client.runner.run(client.app.state.service.shadow.update())
        assert client.get(SHADOW).json()["sentence"] == "The exits are not checked yet."
        assert client.post(CLASSIFY, **as_raw(pngs[0])).status_code == 200


def test_a_policy_without_early_exits_has_nothing_to_check(client: Client) -> None:
    client.put(PUT, json={"mode": "ensemble", "thresholds": [0.5, 0.5], "max_exit": 3})
    client.runner.run(client.app.state.service.shadow.update())
    found = client.get(SHADOW).json()
    assert (found["sentence"], found["status"]["exits"]) == (
        "No image leaves early under this policy.",
        [],
    )


async def flood(url: str, file: bytes) -> None:
    """Eight clients, five requests each: some always wait."""
    async with httpx.AsyncClient(timeout=20) as http:

        async def send() -> None:
            for _ in range(5):
                answer = await http.post(url, **as_raw(file))
                assert exits_of(answer) == [1]

        await asyncio.gather(*(send() for _ in range(8)))


def test_over_sockets_answers_come_before_their_shadows_which_load_drops(
    bundle_path: Path,
    pngs: list[bytes],
    expected: list[Prediction],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The table of this bundle promises too little for a raise."""
    monkeypatch.setattr(shadows, "MAX_WAIT_S", 0.05)
    early = next(number for number, found in enumerate(expected) if found.exit == 1)
    settings = Settings(bundles=(bundle_path,), workers=1, shadow_share=1.0, shadow_max_work=1.0)
    with live(settings) as (port, service), httpx.Client(timeout=10) as http:
        stage = hold(service, 2)
        answer = http.post(f"http://127.0.0.1:{port}{CLASSIFY}", **as_raw(pngs[early]))
        assert answer.json()["predictions"][0]["exit"] == 1
        assert stage.held.acquire(timeout=10)
        assert checks(service) == 0
        stage.open.set()
        # Busy from now on, so that shadows wait for too long.
        stage.pause = 0.02
        asyncio.run(flood(f"http://127.0.0.1:{port}{CLASSIFY}", pngs[early]))
        shown = http.get(f"http://127.0.0.1:{port}/metrics").text
        dropped = 'offramp_shadows_dropped_total{model="tiny",reason="busy"} '
        assert float(shown.split(dropped)[1].split()[0]) > 0


def test_a_server_process_raises_by_itself_and_ends_cleanly(
    promising: Path, pngs: list[bytes], tmp_path: Path
) -> None:
    flags = ("--shadow-share", "1", "--workers", "1")
    settings = {"shadow_max_work": 1}
    with started((*SERVE, str(promising), *flags), tmp_path, settings) as server:
        with httpx.Client(base_url=server.url, timeout=20) as http:
            for _ in range(400):
                for file in pngs:
                    http.post(CLASSIFY, **as_raw(file))
                found = http.get(SHADOW).json()[STATUS]
                if len({one["exit"] for one in found["raises"]}) == 2:
                    break
            assert http.get(PUT).json()["policy"]["thresholds"] == [NEVER, NEVER]
            assert set(exits_of(http.post(CLASSIFY, **as_json(pngs)))) == {3}
            put = http.put(PUT, json=POLICY_DEFAULT.model_dump(mode="json"))
            assert put.json()["policy"]["thresholds"] == list(POLICY_DEFAULT.thresholds)
            assert set(exits_of(http.post(CLASSIFY, **as_json(pngs)))) == {1, 2, 3}
        assert server.terminate() == 0
    printed = "".join(server.printed)
    assert "exit 1 was closed, its threshold was 0.6" in printed
    assert "Traceback" not in printed


def test_on_ray_exits_are_not_checked() -> None:
    with pytest.raises(SettingsError, match="not checked on Ray"):
        Arguments(settings={"shadow_share": 0.1}).read_settings()
