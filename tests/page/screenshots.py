"""Pictures of the page's three views, light and dark, wide and narrow, for docs/guide/page.md.

    python -m tests.page.screenshots docs/images/page

The real server on the embedded bundle of groceries answers. For Watch it, the page's clock runs fast:
five minutes of it pass while as many requests as fit are sent, so rates are per second of that clock, and
latencies are those of the machine this runs on.
"""

from __future__ import annotations

import io
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from exports.bundle.resolve import GROCERIES
from tests.page.browser import chromium
from tests.page.conftest import SAMPLES
from tests.servers import started

SIZES = {"wide": (1280, 860), "narrow": (390, 800)}
STEPS = 155
EVERY_MS = 2000
BUSY = (2, 14)
# Of the images that are sent.
SIDE = 224


def main(folder: Path) -> None:
    """Write the twelve pictures into `folder`, as WebP."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as place:
        bundle = shutil.copytree(GROCERIES, Path(place) / "embedded")
        command = [sys.executable, "-m", "offramp.cli", "serve", str(bundle), "--port", "0"]
        with started(command, Path(place)) as server, chromium() as browser:
            context = browser.new_context(device_scale_factor=1.5, reduced_motion="reduce")
            page = context.new_page()
            page.clock.install()
            page.goto(f"{server.url}/")
            for view, prepare in (("try", _try), ("tune", _tune), ("watch", _watch)):
                page.locator(f"#tab-{view}").click()
                prepare(page)
                _take(page, view, folder)


def _take(page: Page, view: str, folder: Path) -> None:
    for width, (across, down) in SIZES.items():
        for scheme in ("light", "dark"):
            page.set_viewport_size({"width": across, "height": down})
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.mouse.move(0, 0)
            # Charts are drawn again when their size is known.
            page.clock.run_for(100)
            file = folder / f"{view}-{scheme}-{width}.webp"
            picture = Image.open(io.BytesIO(page.screenshot(full_page=True)))
            picture.save(file, quality=80, method=6)
            print(f"{file}: {file.stat().st_size // 1000} kB", flush=True)


def _try(page: Page) -> None:
    # The first image of a server's life is slower than any later one.
    page.get_by_role("button", name="bananas").click()
    expect(page.locator("#result .badge")).to_have_text("Exit 1 of 2")
    page.get_by_role("button", name="apples").click()
    expect(page.locator("#result .badge")).to_have_text("Exit 2 of 2")


def _tune(page: Page) -> None:
    expect(page.locator("#curve .policy.dot")).to_be_visible(timeout=60_000)
    page.get_by_role("slider", name="Threshold of exit 1", exact=True).fill("0.3")
    expect(page.locator("#curve .policy.ring")).to_be_visible()
    expect(page.locator("#forecast")).to_contain_text("Draft")


def _watch(page: Page) -> None:
    rng = np.random.default_rng(0)
    names = page.locator("#samples li:not([hidden]) img").evaluate_all(
        "(all) => all.map((i) => i.alt)"
    )
    samples = [Image.open(SAMPLES / f"{name}.webp").convert("RGB") for name in names]
    address = page.url.split("#")[0] + "v1/classify"
    headers = {"Content-Type": "image/png"}

    def ask(image: bytes) -> None:
        client.post(address, content=image, headers=headers)

    with httpx.Client() as client, ThreadPoolExecutor(4) as threads:
        for step in range(STEPS):
            swell = BUSY[0] + (BUSY[1] - BUSY[0]) * (0.5 + 0.5 * np.sin(step / 14))
            count = int(rng.poisson(swell))
            list(threads.map(ask, [_variant(samples, rng) for _ in range(count)]))
            page.clock.run_for(EVERY_MS)
    expect(page.locator("#exits-table")).to_contain_text("ms")


def _variant(samples: list[Image.Image], rng: np.random.Generator) -> bytes:
    """A sample, turned and noisy, so that some are easy and some are hard."""
    image = samples[rng.integers(len(samples))].resize((SIDE, SIDE))
    turned = image.rotate(float(rng.normal(0, 8)), expand=False)
    noisy = np.asarray(turned) + rng.normal(0, rng.uniform(0, 20), (SIDE, SIDE, 3))
    content = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(content, "PNG")
    return content.getvalue()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
