"""Where a bundle comes from: the part of manifest.json about its networks, data and figures."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from exports.bundle.schema_types import Part, Percent, Share


class Operating(Part):
    """The default policy on the test split: accuracy in percent, mean MACs, and the share of samples that
    leaves at each exit."""

    accuracy: Percent
    mean_macs: Annotated[float, Field(gt=0)]
    exit_shares: tuple[Share, ...]


class Provenance(Part):
    """The origin of the bundle. `test_default` is of the policy that the exporter wrote.

    `recipe` is of the network of stage 1, `followers` are those of the networks after it; of a network
    that was imported it has the file and its preprocessing, below `onnx`. Where `splits` has no test
    images, all figures called `test` are of the part of the held-out split on which no temperature was
    fitted; and if the recipe has a `refit`, of the weights before it.
    """

    recipe: dict[str, Any]
    followers: tuple[dict[str, Any], ...] = ()
    dataset: str
    splits: dict[str, int]
    seed: int
    test_default: Operating
    tools: dict[str, str]
    created: str

    @property
    def has_test(self) -> bool:
        """Whether the figures called `test` are of a test split."""
        return self.splits.get("test") != 0

    @property
    def evaluated_on(self) -> str:
        """The images that the figures called `test` are of, in words."""
        if self.has_test:
            return "test split"
        return "part of the held-out split on which no temperature was fitted"

    @property
    def imported(self) -> bool:
        """Whether there is a network that Offramp did not train; the recipe of such a one has `onnx`."""
        return any("onnx" in recipe for recipe in (self.recipe, *self.followers))

    @property
    def refit(self) -> bool:
        """Whether the weights were trained once more on everything, the held-out split included."""
        return bool(self.recipe.get("refit"))
