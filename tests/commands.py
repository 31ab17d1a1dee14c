"""The command `offramp` inside the test's own process: quicker than a new one, the same to its user."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass
from unittest import mock

from offramp.cli import main


@dataclass(frozen=True)
class CommandResult:
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def refused_in_one_sentence(self) -> bool:
        """Whether it ended with exit code 2 and one line on stderr that ends in a full stop."""
        lines = self.err.splitlines()
        one = len(lines) == 1 and lines[0].startswith("offramp: ") and lines[0].endswith(".")
        return self.code == 2 and self.out == "" and one


def call(*arguments: object) -> CommandResult:
    """Run `offramp` with `arguments` to its end."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with (
        mock.patch.object(sys, "argv", ["offramp", *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
        except SystemExit as left:
            code = left.code or 0
    assert isinstance(code, int)
    return CommandResult(code, out.getvalue(), err.getvalue())
