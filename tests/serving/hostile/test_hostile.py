"""Hostile input gets one answer within bounds of time and memory, and the server stays healthy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.servers import Server
from tests.serving.hostile import bodies, images
from tests.serving.hostile.probe import MIB, Watch

# Memory for the largest image and body allowed, on each of two workers.
MAX_GROWTH_BYTES = 200 * MIB
Named = Iterable[tuple[str, bytes]]


@pytest.fixture(scope="module")
def watch(server: Server, http: httpx.Client, pngs: list[bytes]) -> Iterator[Watch]:
    watch = Watch(http, _serving(server))
    watch.send("warm-up", bodies.CLASSIFY, {"Content-Type": "image/png"}, pngs[0])
    before = watch.resident()
    yield watch
    assert watch.is_healthy()
    assert watch.peak() < before + MAX_GROWTH_BYTES, (
        f"{before / MIB:.0f} to {watch.peak() / MIB:.0f} MiB"
    )
    lines = "".join(server.printed)
    assert "Traceback" not in lines, lines
    assert len(server.printed) < 30, lines


def _serving(server: Server) -> int:
    """The id of the server's process: `env` replaces itself with the server."""
    return server.process.pid


def classify(watch: Watch, name: str, content: bytes) -> int:
    return watch.send(name, bodies.CLASSIFY, {"Content-Type": "image/png"}, content)


# Images and bodies are made in the tests, not as their parameters: every process collects all parameters.
def test_the_files_that_are_damaged_here_are_fine_before(watch: Watch) -> None:
    for kind, content in images.honest().items():
        assert classify(watch, kind, content) == 200, kind


@pytest.mark.parametrize("kind", [images.bombs, images.burdens, images.oddities])
def test_a_hostile_image_gets_one_answer(watch: Watch, kind: Callable[[], Named]) -> None:
    for name, content in kind():
        classify(watch, name, content)
        assert watch.is_healthy(), name


def test_a_file_made_to_be_slow_is_not_decoded(watch: Watch) -> None:
    for name, content in images.sloths():
        assert classify(watch, name, content) == 400, name


def test_a_truncated_file_is_refused_or_decoded(watch: Watch) -> None:
    for name, content in images.cut():
        classify(watch, name, content)
    assert watch.is_healthy()


def test_a_file_with_a_flipped_byte_gets_one_answer(watch: Watch) -> None:
    for name, content in images.flipped():
        classify(watch, name, content)
    assert watch.is_healthy()


def test_a_hostile_body_gets_one_answer(watch: Watch) -> None:
    for request in bodies.requests():
        watch.send(*request)


def test_the_server_is_healthy_after_hostile_bodies(watch: Watch) -> None:
    assert watch.is_healthy()


def test_what_is_not_http_ends_one_connection(watch: Watch) -> None:
    for name, content in bodies.wire():
        answer = watch.speak(name, content)
        assert answer == b"" or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 200")), name
        assert watch.is_healthy(), name


FILES = st.deferred(lambda: st.sampled_from(list(images.honest().values())))
REQUESTS = st.deferred(lambda: st.sampled_from([r for r in bodies.requests() if len(r[3]) < 2000]))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=FILES,
    changes=st.lists(
        st.tuples(st.integers(0, 2000), st.binary(max_size=8), st.integers(0, 8)), max_size=6
    ),
)
def test_any_change_of_an_image_gets_one_answer(
    watch: Watch, content: bytes, changes: list[tuple[int, bytes, int]]
) -> None:
    for at, new, removed in changes:
        at %= len(content) + 1
        content = content[:at] + new + content[at + removed :]
    classify(watch, "changed", content)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    request=REQUESTS,
    changes=st.lists(
        st.tuples(st.integers(0, 2000), st.binary(max_size=8), st.integers(0, 8)), max_size=6
    ),
)
def test_any_change_of_a_body_gets_one_answer(
    watch: Watch, request: bodies.Request, changes: list[tuple[int, bytes, int]]
) -> None:
    name, path, headers, content = request
    for at, new, removed in changes:
        at %= len(content) + 1
        content = content[:at] + new + content[at + removed :]
    watch.send(name, path, headers, content)
