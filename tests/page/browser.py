"""Debian's Chromium, driven by Playwright, and what it must not do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, sync_playwright

from tests.debian import require

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
# What Chromium itself writes for an answer that is an error, or for none at all.
FAILED_REQUEST = "Failed to load resource"


@dataclass
class Record:
    """What a page did that nobody should see: errors, and requests to another host than `host`."""

    host: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def console(self, message: ConsoleMessage) -> None:
        """Keep warnings and errors of the console."""
        if message.type in ("error", "warning"):
            self.errors.append(message.text)

    def error(self, error: Error) -> None:
        """Keep exceptions that nothing caught."""
        self.errors.append(str(error))

    def request(self, request: Request) -> None:
        """Keep requests that leave the host."""
        address = urlsplit(request.url)
        if address.scheme not in ("blob", "data") and address.netloc != self.host:
            self.foreign.append(request.url)

    def forgive_failed_requests(self) -> None:
        """For a test in which requests are meant to fail."""
        self.errors = [text for text in self.errors if not text.startswith(FAILED_REQUEST)]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser for as long as the context lasts."""
    executable = require("chromium-headless-shell", "chromium-headless-shell")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        yield browser
        browser.close()


def watched(page: Page, url: str) -> Record:
    """The record of `page`, which is about to open `url`."""
    record = Record(urlsplit(url).netloc)
    page.on("console", record.console)
    page.on("pageerror", record.error)
    page.on("request", record.request)
    return record


@contextmanager
def watching(page: Page, url: str) -> Iterator[Record]:
    """The record of `page`, which is about to open `url`, until the context ends."""
    record = watched(page, url)
    yield record
    page.remove_listener("console", record.console)
    page.remove_listener("pageerror", record.error)
    page.remove_listener("request", record.request)
