"""The comparators by the name a recipe's `objective.method` gives them."""

from __future__ import annotations

from training.comparators.activation_boundaries import ActivationBoundaries
from training.comparators.attention_features import AttentionFeatures
from training.comparators.attention_transfer import AttentionTransfer
from training.comparators.base import Comparator
from training.comparators.contrastive_representation import ContrastiveRepresentation
from training.comparators.correlation_congruence import CorrelationCongruence
from training.comparators.factor_transfer import FactorTransfer
from training.comparators.fitnet import FitNet
from training.comparators.hierarchical_augmented import HierarchicalAugmented
from training.comparators.probabilistic_transfer import ProbabilisticTransfer
from training.comparators.relational_knowledge import RelationalKnowledge
from training.comparators.self_supervision import SelfSupervision
from training.comparators.similarity_preserving import SimilarityPreserving
from training.comparators.teacher_and_self import TeacherAndSelf
from training.comparators.variational_information import VariationalInformation

COMPARATORS: dict[str, type[Comparator]] = {
    "fitnet": FitNet,
    "at": AttentionTransfer,
    "sp": SimilarityPreserving,
    "cc": CorrelationCongruence,
    "vid": VariationalInformation,
    "rkd": RelationalKnowledge,
    "pkt": ProbabilisticTransfer,
    "ab": ActivationBoundaries,
    "ft": FactorTransfer,
    "crd": ContrastiveRepresentation,
    "sskd": SelfSupervision,
    "hsakd": HierarchicalAugmented,
    "tskd": TeacherAndSelf,
    "afd": AttentionFeatures,
}
