"""What every table of a recipe has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class RecipePart(BaseModel):
    """Immutable, without unknown keys, NaN or infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
