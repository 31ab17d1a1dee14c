"""The table of settings in docs/reference/configuration.md.

    python -m tests.docs.settings_table

writes it into the page, from the settings' names, defaults and descriptions.
"""

from __future__ import annotations

from pathlib import Path

from serving.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"
BEGIN, END = "<!-- settings -->\n", "<!-- end -->\n"
# Defaults that are not a fixed value.
IN_WORDS = {
    "bundles": "the embedded ones",
    "workers": "one per core",
    "cors_origins": "none",
    "root_path": "none",
    "forwarded_allow_ips": "none",
    "job_callback_hosts": "none",
}


def table() -> str:
    """A Markdown row per setting."""
    rows = [
        f"| `OFFRAMP_{name.upper()}` | {_default(name)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    head = ("| variable | default | what |", "|---|---|---|")
    return "\n".join([*head, *rows]) + "\n"


def with_table(text: str) -> str:
    """`text` with the table between its markers."""
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}{table()}{END}{after}"


def _default(name: str) -> str:
    default = Settings.model_fields[name].default
    if name in IN_WORDS:
        return IN_WORDS[name]
    if default is None:
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text("utf-8")), "utf-8")
