from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from serving.http.coalescing import CoalescingTransport


class Recorder:
    """Records the calls of a transport, in order."""

    def __init__(self) -> None:
        self.calls: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.calls.append(data)

    def close(self) -> None:
        self.calls.append("close")

    def abort(self) -> None:
        self.calls.append("abort")

    def get_write_buffer_size(self) -> int:
        return 1000

    def is_closing(self) -> bool:
        return bool({"close", "abort"} & set(self.calls))


def calls(actions: Callable[[Any, Recorder], None]) -> list[bytes | str]:
    """The calls that `actions` cause, in one iteration of the event loop and the one after it."""

    async def scenario() -> list[bytes | str]:
        recorder = Recorder()
        actions(CoalescingTransport(recorder, asyncio.get_running_loop()), recorder)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        return recorder.calls

    return asyncio.run(scenario())


def test_a_head_and_its_body_are_sent_together() -> None:
    def actions(transport: Any, recorder: Recorder) -> None:
        transport.write(b"head")
        assert recorder.calls == []
        assert transport.get_write_buffer_size() == 1004
        transport.write(b"body")
        assert recorder.calls == [b"headbody"]

    assert calls(actions) == [b"headbody"]


def test_a_single_write_is_sent_in_the_same_iteration_of_the_loop() -> None:
    assert calls(lambda transport, _: transport.write(b"head")) == [b"head"]


def test_bytes_are_sent_in_order() -> None:
    def actions(transport: Any, _: Recorder) -> None:
        for part in (b"1", b"2", b"", b"3", b"4", b"5"):
            transport.write(part)

    assert b"".join(part for part in calls(actions) if isinstance(part, bytes)) == b"12345"


def test_closing_sends_what_is_held_first() -> None:
    def actions(transport: Any, _: Recorder) -> None:
        transport.write(b"last words")
        transport.close()
        assert transport.is_closing()

    assert calls(actions) == [b"last words", "close"]


def test_nothing_is_written_to_an_aborted_connection() -> None:
    def actions(transport: Any, _: Recorder) -> None:
        transport.write(b"head")
        transport.abort()

    assert calls(actions) == ["abort"]


def test_everything_else_is_delegated() -> None:
    assert calls(lambda transport, _: transport.abort()) == ["abort"]
