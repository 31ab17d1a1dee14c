"""The comparators by the name a recipe's `objective.method` gives them."""

from __future__ import annotations

from training.comparators.base import Comparator
from training.comparators.similarity import SimilarityPreserving

COMPARATORS: dict[str, type[Comparator]] = {"sp": SimilarityPreserving}
