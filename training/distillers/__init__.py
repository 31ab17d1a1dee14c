"""Published distillation methods to compare with, by their name in a recipe's `objective.method`."""

from __future__ import annotations

from training.distillers.activation_boundaries import ActivationBoundaries
from training.distillers.attention_features import AttentionFeatures
from training.distillers.attention_transfer import AttentionTransfer
from training.distillers.base import Distiller
from training.distillers.contrastive_representation import ContrastiveRepresentation
from training.distillers.factor_transfer import FactorTransfer
from training.distillers.fitnet import FitNet
from training.distillers.hierarchical_augmented import HierarchicalAugmented
from training.distillers.relations.correlation_congruence import CorrelationCongruence
from training.distillers.relations.probabilistic_transfer import ProbabilisticTransfer
from training.distillers.relations.relational_knowledge import RelationalKnowledge
from training.distillers.relations.similarity_preserving import SimilarityPreserving
from training.distillers.self_supervision import SelfSupervision
from training.distillers.teacher_and_self import TeacherAndSelf
from training.distillers.variational_information import VariationalInformation

DISTILLERS: dict[str, type[Distiller]] = {
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
