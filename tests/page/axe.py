"""axe-core, which finds barriers in a page; from npm, once per machine."""

from __future__ import annotations

import subprocess
import tarfile
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from playwright.sync_api import Page

from tests.debian import require

VERSION = "4.14.1"
KEPT = Path(gettempdir()) / f"offramp-axe-core-{VERSION}.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
RUN = """async (tags) => {
  const { violations } = await axe.run(document, {runOnly: {type: "tag", values: tags}});
  return violations.map(({id, nodes}) => [id, nodes.map((node) => node.target.join(" ")
    + ": " + node.any.concat(node.all, node.none).map((check) => check.message).join("; "))]);
}"""


@cache
def source() -> str:
    """axe-core's script."""
    if not KEPT.exists():
        npm = require("npm", "npm")
        with TemporaryDirectory() as place:
            subprocess.run(
                [npm, "pack", "--silent", f"axe-core@{VERSION}", "--pack-destination", place],
                check=True,
                capture_output=True,
                timeout=120,
            )
            (archive,) = Path(place).glob("*.tgz")
            with tarfile.open(archive) as files:
                script = files.extractfile("package/axe.min.js")
                assert script is not None
                content = script.read()
        beside = KEPT.with_suffix(".part")
        beside.write_bytes(content)
        beside.rename(KEPT)
    return KEPT.read_text("utf-8")


def violations(page: Page) -> list[Any]:
    """What axe finds wrong with `page` as it is shown now."""
    page.evaluate(source())
    found: list[Any] = page.evaluate(RUN, RULES)
    return found
