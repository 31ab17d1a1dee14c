"""Reasons for the choices of training/recipes/auto.py, one line each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# Classes that the reasons name.
MAX_NAMED = 3


def counts_reason(counts: Mapping[str, int], side: int, enlarged_from: int | None) -> str:
    """How many images there are of which classes, and how large they are."""
    low, high = min(counts.values()), max(counts.values())
    each = str(low) if low == high else f"{low} to {high}"
    reason = (
        f"{sum(counts.values())} training images in {len(counts)} classes ({_named(counts)}), {each} a "
        "class; "
        f"half of them have a shorter side of {side} pixels or more"
    )
    if enlarged_from is not None:
        reason += f", but most were enlarged from about {enlarged_from}"
    return reason


def flip_reason(names: Sequence[str]) -> str:
    """`names` are those of all recipes, each of which is to be changed."""
    where = "" if len(names) == 1 else f" in {' and '.join(f'{name}.toml' for name in names)}"
    return (
        f"images are mirrored at random: where left and right matter, set data.flip = false{where}"
    )


def _named(counts: Mapping[str, int]) -> str:
    """The first few classes. They are written into a comment of one line."""
    names = [name if name.isprintable() else ascii(name) for name in list(counts)[:MAX_NAMED]]
    return ", ".join(names) + (", …" if len(counts) > MAX_NAMED else "")
