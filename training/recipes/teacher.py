"""The teacher of a recipe: a finished run or ONNX classifiers, online or through cached views."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from training.recipes.part import RecipePart

DEFAULT_VIEWS = 24
# Objectives that need nothing of the teacher but its logits, and those that need one exit's only.
LOGIT_METHODS = ("kd", "mskd", "oto")
LAST_EXIT_METHODS = ("kd", "mskd")

PositiveFloat = Annotated[float, Field(gt=0)]


class TeacherRecipe(RecipePart):
    """The teacher: the finished run of `recipe`, or the ONNX classifiers in the files `onnx`.

    `views` is the number of views whose logits are cached (training/teachers); without it the teacher
    runs in every step. With `undamaged` the views' logits are those of the images before degradation and
    compression. ONNX classifiers always use views. Each takes uint8 [N, H, W, 3] if `onnx_input`
    is "uint8-nhwc"; else float32 [N, 3, H, W], normalised with `onnx_mean` and `onnx_std`, in units of
    the full range. Each returns [N, classes], as `onnx_output` says; of several, the mean of the
    probabilities teaches.
    """

    recipe: str | None = None
    onnx: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    onnx_input: Literal["uint8-nhwc"] | None = None
    onnx_mean: tuple[float, float, float] | None = None
    onnx_std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    onnx_output: Literal["logits", "probabilities"] | None = Field(
        default_factory=lambda values: "logits" if values.get("onnx") else None
    )
    views: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default_factory=lambda values: DEFAULT_VIEWS if values.get("onnx") else None
    )

    undamaged: bool = False

    @model_validator(mode="after")
    def _undamaged_is_of_views(self) -> Self:
        if self.undamaged and self.views is None:
            raise ValueError("undamaged needs views")
        return self

    @model_validator(mode="after")
    def _is_one_teacher(self) -> Self:
        if (self.recipe is None) == (self.onnx is None):
            raise ValueError("give either recipe or onnx")
        return self

    @model_validator(mode="after")
    def _onnx_fields_fit(self) -> Self:
        statistics = (self.onnx_mean, self.onnx_std)
        if self.onnx is None:
            if (self.onnx_input, *statistics, self.onnx_output) != (None,) * 4:
                raise ValueError(
                    "the fields onnx_input, onnx_mean, onnx_std, onnx_output need onnx"
                )
            return self
        if self.onnx_output is None or self.views is None:
            raise ValueError("onnx needs onnx_output and views")
        uint8 = self.onnx_input is not None
        if statistics.count(None) != (2 if uint8 else 0):
            raise ValueError(
                'onnx needs either onnx_input = "uint8-nhwc" or both onnx_mean and onnx_std'
            )
        return self
