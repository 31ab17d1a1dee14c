"""RKD: relational knowledge distillation (Park et al., CVPR 2019)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from training.distillers.base import Distiller
from training.distillers.features import unit
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch


class RelationalKnowledge(Distiller):
    """L_m = 25 mean_{ij} h(d_s, d_t) + 50 mean_{ijk} h(a_s, a_t) on the embeddings e, with h the Huber
    loss, d_ij = ||e_i - e_j|| over the mean distance of distinct samples, and a_ijk the cosine of
    the angle at e_i between e_j and e_k. Where two samples coincide their distance and the cosines of
    their difference are 0, and the distance has no gradient.

    Sections 3.2.1 and 3.2.2 of the paper, with its weights for classification; the means go over all
    N^2 pairs and N^3 triples, including i = j, as in the authors' code.
    """

    beta = 1.0
    distance_weight = 25.0
    angle_weight = 50.0

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        s, t = _differences(student.embedding), _differences(teacher.embedding)
        distance = smooth_l1_loss(_distances(s), _distances(t))
        angle = smooth_l1_loss(_cosines(s), _cosines(t))
        return self.distance_weight * distance + self.angle_weight * angle


def _differences(embedding: Tensor) -> Tensor:
    """[N, C] -> [N, N, C]: from sample i, the first index, to sample j."""
    return embedding.unsqueeze(0) - embedding.unsqueeze(1)


def _distances(differences: Tensor) -> Tensor:
    """[N, N, C] -> [N, N], of mean 1 over the distinct pairs."""
    squared = differences.square().sum(2)
    distinct = squared > 0
    # The square root has no finite gradient at 0, so zeros are replaced before it.
    lengths = torch.where(distinct, squared, 1.0).sqrt() * distinct
    return lengths * (distinct.sum() / torch.where(distinct.any(), lengths.sum(), 1.0))


def _cosines(differences: Tensor) -> Tensor:
    """[N, N, C] -> [N, N, N]."""
    directions = unit(differences, dim=2)
    return directions @ directions.transpose(1, 2)
