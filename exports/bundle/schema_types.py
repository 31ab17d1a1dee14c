"""Types that the parts of manifest.json share, and other files and answers with them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
MAX_NAME = 100

FileName = Annotated[str, Field(pattern=FILE_NAME, max_length=MAX_NAME)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Percent = Annotated[float, Field(ge=0, le=100)]
Share = Annotated[float, Field(ge=0, le=1)]
# Of multiply-accumulates or weights; a float knows all integers up to here.
Count = Annotated[int, Field(gt=0, le=1 << 53)]
# What logits are divided or multiplied by, far from where float32 overflows.
Factor = Annotated[float, Field(ge=1e-6, le=1e6)]
# In OpenAPI a pair is an array of two numbers: not every generator of clients knows `prefixItems`.
PAIR = WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2})
Interval = Annotated[tuple[float, float], PAIR]


def is_file_name(text: str) -> bool:
    """Whether `text` can be a FileName, as a bundle's name and version are."""
    return len(text) <= MAX_NAME and re.fullmatch(FILE_NAME, text) is not None


class Part(BaseModel):
    """A part of the manifest: no other fields, not changed once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
