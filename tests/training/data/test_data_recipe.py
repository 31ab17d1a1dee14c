"""An incomplete or contradictory [data] table of a recipe is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from training.recipes.schema import DataRecipe


def data(**fields: object) -> DataRecipe:
    return DataRecipe.model_validate({"name": "digits", "held_out": 1, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "folder", "side": 64}, "data set folder needs a path"),
        ({"name": "folder", "path": "photos"}, "data set folder needs a side"),
        ({"path": "photos"}, "data set digits takes no path"),
        ({"side": 64}, "data set digits takes no side"),
        ({"name": "folder", "path": "", "side": 64}, "path"),
        ({"name": "folder", "path": "photos", "side": 31}, "side"),
        ({"name": "folder", "path": "photos", "side": 321}, "between 32 and 320"),
        ({"scale": [0.5, 0.2]}, "low no larger than high"),
        ({"scale": [0.0, 0.2]}, "scale"),
        ({"scale": [0.5, 1.1]}, "scale"),
        ({"scale": [0.5]}, "scale"),
        ({"cutout": -1}, "cutout"),
        ({"rotation": 181}, "rotation"),
        ({"autoaugment": "svhn"}, "autoaugment"),
    ],
)
def test_an_impossible_table_is_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        data(**fields)


def test_a_resized_crop_replaces_the_padded_one_unless_both_are_set() -> None:
    assert data().padding == 4
    assert data(scale=[0.5, 1.0]).padding == 0
    assert data(scale=[0.5, 1.0], padding=2).padding == 2


def test_a_table_is_read_back_unchanged() -> None:
    for fields in ({"name": "folder", "path": "a/b", "side": 320, "scale": [0.2, 1.0]}, {}):
        table = data(**fields)
        assert DataRecipe.model_validate(table.model_dump(mode="json")) == table
