"""Callbacks of jobs: the hosts that are allowed, and what happens when one refuses."""

from __future__ import annotations

import pytest

from serving.errors import SettingsError
from serving.jobs import callbacks, runner
from serving.settings import Settings, read_settings
from tests.serving.conftest import Client, running
from tests.serving.jobs.archives import as_zip
from tests.serving.jobs.conftest import Receiver, post, wait_for
from tests.serving.requests import metrics


def test_a_callback_is_sent_again_and_then_given_up(
    settings: Settings, pngs: list[bytes], host: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "WAITS_S", (0.0, 0.05))
    host.status, host.headers = 302, {"Location": f"http://{host.host}/elsewhere"}
    with running(settings.model_copy(update={"job_callback_hosts": (host.host,)})) as client:
        id_ = post(client, f"?callback=http://{host.host}/done", **as_zip({"a": pngs[0]}))
        job = wait_for(client.get, id_, lambda answer: answer["callback"] != "pending")
        assert (job["state"], job["callback"]) == ("done", "failed")
        assert 'offramp_job_callbacks_total{outcome="failed"} 1.0' in metrics(client)
    # Redirects are not followed.
    assert [path for path, _ in host.sent] == ["/done", "/done"]


@pytest.mark.parametrize(
    "address",
    [
        *("http://other.org/", "http://example.org:81/", "http://example.org@other.org/"),
        *("http://user@example.org/", "http://example.org.other.org/", "ftp://example.org/"),
        *("example.org", "//example.org/", "http://example.org:x/", "http://example.org/ü", ""),
        "http://example.org/a b",
    ],
)
def test_only_allowed_hosts_get_a_callback(client: Client, address: str) -> None:
    hosts = ("example.org",)
    callbacks.check_address("https://EXAMPLE.org/a?b=c", hosts)
    with pytest.raises(callbacks.InvalidRequestError):
        callbacks.check_address(address, hosts)


@pytest.mark.parametrize("host", ["http://example.org", "example.org/path", "a@b", "*"])
def test_a_callback_host_is_a_name_and_perhaps_a_port(host: str) -> None:
    with pytest.raises(SettingsError, match="job_callback_hosts"):
        read_settings(job_callback_hosts=(host,))
