"""The comparators by the name a recipe's `objective.method` gives them."""

from __future__ import annotations

from training.comparators.activation_boundaries import ActivationBoundaries
from training.comparators.base import Comparator
from training.comparators.contrastive_representation import ContrastiveRepresentation
from training.comparators.factor_transfer import FactorTransfer
from training.comparators.hierarchical_augmented import HierarchicalAugmented
from training.comparators.self_supervision import SelfSupervision
from training.comparators.similarity import SimilarityPreserving
from training.comparators.teacher_and_self import TeacherAndSelf

COMPARATORS: dict[str, type[Comparator]] = {
    "sp": SimilarityPreserving,
    "ab": ActivationBoundaries,
    "ft": FactorTransfer,
    "crd": ContrastiveRepresentation,
    "sskd": SelfSupervision,
    "hsakd": HierarchicalAugmented,
    "tskd": TeacherAndSelf,
}
