"""Escapes untrusted text for YAML and Markdown, so that it cannot change the structure around it."""

from __future__ import annotations

import string

from exports.bundle.untrusted.safe_files import one_line

# Numeric escapes of YAML 1.2 section 5.7, by the largest code point they can express.
ESCAPES = ((0xFF, "\\x{:02x}"), (0xFFFF, "\\u{:04x}"), (0x10FFFF, "\\U{:08x}"))


def yaml_string(text: str) -> str:
    """`text` as a double-quoted YAML scalar on one line (YAML 1.2 section 7.3.1)."""
    return '"' + "".join(_yaml_letter(letter) for letter in text) + '"'


def markdown_text(text: str) -> str:
    """`text` as Markdown that shows it literally, on one line (CommonMark 0.31 section 2.4).

    A backslash can escape every ASCII punctuation mark, and HTML cannot start without one.
    """
    return "".join(
        f"\\{letter}" if letter in string.punctuation else letter for letter in one_line(text)
    )


def _yaml_letter(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    if letter.isprintable():
        return letter
    return next(form for limit, form in ESCAPES if ord(letter) <= limit).format(ord(letter))
