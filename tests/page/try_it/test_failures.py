"""Try it: what cannot be shown, read or answered is said, and another try succeeds."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.page.conftest import SAMPLES, Open
from tests.page.try_it.answers import encoded, expect_answer
from tests.servers import Server
from tests.serving.tiny_bundle import write_tiny_bundle


def test_what_is_no_image_is_told_in_a_sentence(open_page: Open, server: Server) -> None:
    page, record = open_page(f"{server.url}/")
    broken = {"name": "a.png", "mimeType": "image/png", "buffer": b"no image"}
    page.set_input_files("#pick", [broken])  # type: ignore[list-item]
    expect(page.get_by_role("alert")).to_contain_text(re.compile(r"image.*\.$"))
    expect(page.locator("#result")).to_have_text("No answer")
    text = {"name": "a.txt", "mimeType": "text/plain", "buffer": b"words"}
    page.set_input_files("#pick", [text])  # type: ignore[list-item]
    expect(page.get_by_role("alert")).to_have_text("That is not an image file.")
    record.forgive_failed_requests()


@pytest.mark.parametrize(("kind", "media_type"), [("TIFF", "image/tiff"), ("TIFF", "")])
def test_a_file_that_the_browser_cannot_show_is_classified_beside_a_placeholder(
    page: Page, kind: str, media_type: str
) -> None:
    content = io.BytesIO()
    Image.open(SAMPLES / "rocket.webp").save(content, kind)
    scan = {"name": "scan.tif", "mimeType": media_type, "buffer": content.getvalue()}
    page.set_input_files("#pick", [scan])  # type: ignore[list-item]
    expect_answer(page, "rocket")
    expect(page.get_by_text("This browser cannot show the file")).to_be_visible()
    for image in page.locator("#try img:visible").all():
        assert image.evaluate("image => image.naturalWidth") > 0
    page.get_by_role("button", name="sunflower").click()
    expect_answer(page, "sunflower")
    expect(page.get_by_text("This browser cannot show the file")).to_be_hidden()


def test_a_format_that_is_not_read_is_named_in_the_words_of_the_server(
    open_page: Open, server: Server
) -> None:
    page, record = open_page(f"{server.url}/")
    expect(page.get_by_text("live")).to_be_visible()
    content = b"\0\0\0\x0cJXL \r\n\x87\n"
    answer = httpx.post(
        f"{server.url}/v1/classify", content=content, headers={"Content-Type": "image/jxl"}
    )
    photo = {"name": "photo.jxl", "mimeType": "", "buffer": content}
    page.set_input_files("#pick", [photo])  # type: ignore[list-item]
    expect(page.get_by_role("alert")).to_have_text(answer.json()["error"])
    assert page.locator("#picture").evaluate("image => image.naturalWidth") > 0
    record.forgive_failed_requests()


def test_offline_is_said_and_recovered_from(open_page: Open, server: Server) -> None:
    page, record = open_page(f"{server.url}/")
    expect(page.get_by_text("live")).to_be_visible()
    page.context.set_offline(True)
    page.set_input_files("#pick", SAMPLES / "apple.webp")
    expect(page.locator("#try-notice")).to_contain_text("The server does not answer.")
    expect(page.locator("#link")).to_have_text("offline")
    page.context.set_offline(False)
    page.locator("#try-notice").get_by_role("button", name="Try again").click()
    expect_answer(page, "apple")
    expect(page.locator("#link")).to_have_text("live")
    record.forgive_failed_requests()


def test_over_capacity_counts_down_and_then_tries_again(
    open_page: Open, serve: Callable[..., Any], bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFRAMP_MAX_QUEUE_MS", "1")
    with serve(bundle) as server:
        page, record = open_page(f"{server.url}/")
        expect(page.get_by_text("live")).to_be_visible()
        with overloaded(server.url):
            notice = page.locator("#try-notice")
            for _ in range(50):
                page.set_input_files("#pick", SAMPLES / "apple.webp")
                expect(page.locator("#result .answer")).not_to_have_text("Classifying …")
                if notice.get_by_role("alert").count():
                    break
            expect(notice).to_contain_text("Over capacity.")
            expect(notice.get_by_role("button")).to_be_disabled()
            expect(notice.get_by_role("button")).to_contain_text(re.compile(r"Try again in \d+ s"))
        expect(notice.get_by_role("button", name="Try again", exact=True)).to_be_enabled()
        notice.get_by_role("button", name="Try again", exact=True).click()
        # This test's own question would find the server busy with the page's.
        expect(page.locator("#result .answer")).to_contain_text("apple")
        expect_answer(page, "apple")
        record.forgive_failed_requests()
        # Before its server goes, which it would notice.
        page.close()


def test_without_a_model_the_page_waits_for_one(
    open_page: Open, serve: Callable[..., Any], tmp_path: Path
) -> None:
    with serve(write_tiny_bundle(tmp_path / "tiny")) as server:
        page, record = open_page(f"{server.url}/")
        expect(page.locator(".exit")).to_have_count(3)
        httpx.delete(f"{server.url}/v1/models/tiny").raise_for_status()
        expect(page.locator("#page-notice")).to_contain_text("No model is loaded.")
        page.set_input_files("#pick", SAMPLES / "rocket.webp")
        expect(page.locator("#try-notice")).to_contain_text("No model is loaded.")
        httpx.put(f"{server.url}/v1/models/tiny").raise_for_status()
        expect(page.locator("#page-notice")).to_be_empty()
        page.set_input_files("#pick", SAMPLES / "rocket.webp")
        expect(page.locator("#result .badge")).to_contain_text("of 3")
        record.forgive_failed_requests()
        # Before its server goes, which it would notice.
        page.close()


class overloaded:  # noqa: N801 - reads as what it does
    """Ask `url` for more than it can do, from several threads, until the context ends."""

    def __init__(self, url: str) -> None:
        self.url = f"{url}/v1/classify"
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.ask) for _ in range(3)]

    def ask(self) -> None:
        body = {"images": [encoded("castle")] * 64}
        with httpx.Client(timeout=60) as client:
            while not self.over.is_set():
                client.post(self.url, json=body)

    def __enter__(self) -> None:
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()
