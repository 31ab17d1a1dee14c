"""A server with budgets: beyond its own a client gets shallower answers, which say so, in every form."""

from __future__ import annotations

import asyncio
import http.client
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from offramp.client.answers import read_answer
from serving.errors import SettingsError
from serving.service import Service
from serving.settings import Settings
from tests.servers import SERVE, started
from tests.serving.api.v2.helpers import INFER, request_of
from tests.serving.budgets.conftest import KEY, UNLIMITED
from tests.serving.canary.conftest import CANARY, nan_stage
from tests.serving.conftest import Client, running
from tests.serving.jobs.archives import as_zip
from tests.serving.models.test_running_server import wait_until
from tests.serving.requests import CLASSIFY, PNG, as_json, assert_error, metrics
from tests.serving.tiny_bundle import write_tiny_bundle

STREAM = "/v1/classify/stream"
HEADER = "Offramp-Limited-By"
MOBILE = {"X-API-Key": KEY}
# Goes as deep as it may, whatever the image.
FULL = f"{CLASSIFY}?threshold=2"


@pytest.fixture
def client(budgets: Path, bundle_path: Path) -> Iterator[Client]:
    with running(Settings(bundles=(str(bundle_path),), budgets=budgets, workers=1)) as client:
        yield client


def ask(client: Client, png: bytes, url: str = FULL, **headers: str) -> Any:
    answer = client.post(url, content=png, headers={**PNG, **headers})
    assert answer.status_code == 200, answer.text
    return answer


def seen(answer: Any) -> tuple[int, str | None, str | None]:
    """The exit, `limited_by` of the answer, and the header."""
    body = answer.json()
    (found,) = body["predictions"]
    return found["exit"], body.get("limited_by"), answer.headers.get(HEADER)


def available(client: Client, name: str) -> float:
    label = f'offramp_budget_available_macs{{client="{name}"}} '
    return float(metrics(client).split(label)[1].split("\n")[0])


def test_a_client_beyond_its_budget_gets_shallower_answers_that_say_so(
    client: Client, pngs: list[bytes]
) -> None:
    assert [seen(ask(client, pngs[0], **MOBILE)) for _ in range(4)] == [(3, None, None)] * 4
    assert available(client, "mobile") == 3000
    # Two images at exit 1 cost 2000, and 1000 are left.
    two = client.post(FULL, **as_json(pngs[:2]), headers=MOBILE)
    assert [found["exit"] for found in two.json()["predictions"]] == [1, 1]
    assert two.json()["limited_by"] == two.headers[HEADER] == "budget"
    for _ in range(3):
        assert seen(ask(client, pngs[0], **MOBILE)) == (1, "budget", "budget")
    # The others have their own.
    assert seen(ask(client, pngs[0])) == (2, "budget", "budget")
    assert seen(ask(client, pngs[0])) == (1, "budget", "budget")
    assert seen(ask(client, pngs[0], Authorization=f"Bearer {UNLIMITED}")) == (3, None, None)
    text = metrics(client)
    assert 'offramp_budget_macs_total{client="mobile"} 17000.0' in text
    assert 'offramp_budget_macs_total{client="office"} 3000.0' in text
    assert 'offramp_budget_requests_total{client="mobile",limited="true"} 4.0' in text
    assert 'offramp_budget_requests_total{client="mobile",limited="false"} 4.0' in text


def test_requests_at_the_same_time_do_not_overdraw_a_budget(
    client: Client, pngs: list[bytes]
) -> None:
    async def ask_together() -> list[httpx.Response]:
        headers = {**MOBILE, **PNG}
        return await asyncio.gather(
            *(client.http.post(FULL, content=png, headers=headers) for png in pngs[:30])
        )

    exits = [seen(answer)[0] for answer in client.runner.run(ask_together())]
    spent = sum(1000 * exit_ for exit_ in exits)
    assert exits.count(3) == 5
    assert spent <= 15_000 + 1000 * exits.count(1)
    assert f'offramp_budget_macs_total{{client="mobile"}} {spent}.0' in metrics(client)


def test_without_budgets_answers_say_nothing_of_them(bundle_path: Path, pngs: list[bytes]) -> None:
    with running(Settings(bundles=(str(bundle_path),), workers=1)) as client:
        assert list(ask(client, pngs[0], **MOBILE).json()) == [
            *("model", "version", "predictions", "timing_ms")
        ]
        assert "offramp_budget" not in metrics(client)


def test_other_options_of_a_limited_request_are_kept(client: Client, pngs: list[bytes]) -> None:
    url = f"{CLASSIFY}?mode=ensemble&reject_below=1&top_k=2"
    ask(client, pngs[0], url)
    (found,) = ask(client, pngs[0], url).json()["predictions"]
    assert (found["exit"], found["reason"], len(found["top_k"])) == (1, "unsure", 2)


def test_early_answers_cost_what_they_take(client: Client, pngs: list[bytes]) -> None:
    for _ in range(15):
        assert seen(ask(client, pngs[0], f"{CLASSIFY}?threshold=0", **MOBILE))[0] == 1
    assert available(client, "mobile") == 0


def test_failed_requests_cost_nothing(client: Client) -> None:
    refused = client.post(CLASSIFY, content=b"no image", headers={**MOBILE, **PNG})
    assert_error(refused, 400, "invalid_image")
    stream = client.post(STREAM, content=b"no image", headers={**MOBILE, **PNG})
    assert stream.status_code == 400
    assert available(client, "mobile") == 15_000


def test_a_request_of_v2_fails_as_a_whole_and_costs_nothing(
    client: Client, pngs: list[bytes]
) -> None:
    before = available(client, "mobile")
    assert client.post(INFER, json=request_of([pngs[0], b"text"]), headers=MOBILE).is_error
    assert available(client, "mobile") == before


def test_a_stream_is_limited(client: Client, pngs: list[bytes]) -> None:
    url = f"{STREAM}?threshold=0&run_all_exits=true"
    answers = []
    for _ in range(6):
        answer = client.post(url, content=pngs[0], headers={**MOBILE, **PNG})
        exits = answer.text.count("event: exit")
        (data,) = [
            json.loads(part.split("data: ")[1])
            for part in answer.text.split("\n\n")
            if part.startswith("event: answer")
        ]
        answers.append((exits, data.get("limited_by"), answer.headers.get(HEADER)))
    # Every exit of five images is paid for.
    assert answers == [(3, None, None)] * 5 + [(1, "budget", "budget")]


def test_v2_is_limited(client: Client, pngs: list[bytes]) -> None:
    body = request_of(pngs[:1]) | {"parameters": {"threshold": 2}}
    found = client.post(INFER, json=body)
    assert found.json()["parameters"]["exit"] == 2
    assert found.json()["parameters"]["limited_by"] == found.headers[HEADER] == "budget"
    paid = client.post(INFER, json=body, headers=MOBILE)
    assert paid.json()["parameters"]["exit"] == 3
    assert "limited_by" not in paid.json()["parameters"]
    assert HEADER not in paid.headers


def test_a_job_spends_its_client_s_budget(
    budgets: Path, bundle_path: Path, tmp_path: Path, pngs: list[bytes]
) -> None:
    settings = Settings(
        bundles=(str(bundle_path),), budgets=budgets, workers=1, jobs=tmp_path / "jobs"
    )
    sent = as_zip({f"{n}.png": png for n, png in enumerate(pngs[:8])})
    sent["headers"] = {**sent["headers"], **MOBILE}
    with running(settings) as client:
        job = client.post("/v1/jobs?threshold=2", **sent).json()
        url = f"/v1/jobs/{job['id']}"
        for _ in range(500):
            if client.get(url).json()["state"] == "done":
                break
            client.runner.run(client.http.get("/livez"))
        rows = [json.loads(line) for line in client.get(f"{url}/results").text.splitlines()]
    assert len(rows) == 8
    # Eight images at exit 3 are beyond 15 000.
    assert any(row.get("limited_by") == "budget" for row in rows)
    assert sum(1000 * row["predictions"][0]["exit"] for row in rows) <= 15_000 + 8 * 1000


def test_answers_of_a_canary_are_limited_too(
    budgets: Path, tmp_path: Path, pngs: list[bytes]
) -> None:
    write_tiny_bundle(tmp_path / "models" / "tiny-1")
    write_tiny_bundle(tmp_path / "models" / "tiny-2", version="2", stages={1: nan_stage(1)})
    with running(Settings(repository=tmp_path / "models", budgets=budgets, workers=1)) as client:
        body = {"bundle": "tiny-2", "share": 1.0}
        assert client.post(CANARY, json=body).status_code == 201
        # It fails, and the stable version answers within the same reservation.
        assert seen(ask(client, pngs[0], **MOBILE)) == (3, None, None)
        assert available(client, "mobile") == 12_000
        assert seen(ask(client, pngs[0])) == (2, "budget", "budget")


def test_limited_answers_are_not_tested_for_drift(client: Client, pngs: list[bytes]) -> None:
    service: Service = client.app.state.service
    observed: list[int] = []
    service.drift.observe = lambda model, found: observed.append(len(found))  # type: ignore[method-assign]
    ask(client, pngs[0], CLASSIFY, **MOBILE)
    ask(client, pngs[0], CLASSIFY)
    ask(client, pngs[0], CLASSIFY)
    assert observed == [1]


def test_a_wrong_file_stops_the_start(bundle_path: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(SettingsError, match="cannot be read"),
        running(Settings(bundles=(str(bundle_path),), budgets=tmp_path / "none")),
    ):
        pass


def test_a_real_server_limits_by_key_and_rereads_the_file(
    budgets: Path, bundle_path: Path, tmp_path: Path, pngs: list[bytes]
) -> None:
    with started(
        [*SERVE, str(bundle_path)], tmp_path, {"workers": 1, "budgets": budgets}
    ) as server:
        connection = http.client.HTTPConnection(*server.address, timeout=30)

        def ask(headers: dict[str, str]) -> tuple[int, str | None, str | None]:
            connection.request("POST", FULL, pngs[0], {**PNG, **headers})
            answer = connection.getresponse()
            body = json.loads(answer.read())
            assert answer.status == 200, body
            (found,) = body["predictions"]
            return found["exit"], body.get("limited_by"), answer.getheader(HEADER)

        assert [ask(MOBILE) for _ in range(6)] == [(3, None, None)] * 5 + [(1, "budget", "budget")]
        assert ask({}) == (2, "budget", "budget")
        assert ask({"Authorization": f"Bearer {UNLIMITED}"}) == (3, None, None)
        budgets.write_text("[anonymous]\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: ask({}) == (3, None, None))
        budgets.write_text("nonsense")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: any("the budgets are not reloaded" in line for line in server.printed))
        assert httpx.get(f"{server.url}/livez").status_code == 200
        assert server.terminate() == 0


def test_the_python_client_says_what_limited_an_answer(client: Client, pngs: list[bytes]) -> None:
    assert read_answer(ask(client, pngs[0]).content).limited_by == "budget"
    assert read_answer(ask(client, pngs[0], **MOBILE).content).limited_by is None
