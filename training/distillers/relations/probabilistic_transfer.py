"""PKT: probabilistic knowledge transfer (Passalis and Tefas, ECCV 2018)."""

from __future__ import annotations

from torch import Tensor

from training.distillers.base import Distiller
from training.distillers.features import unit
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch

EPSILON = 1e-7


class ProbabilisticTransfer(Distiller):
    """L_m = mean_{ij} p_t ln(p_t / p_s), where p_ij is (1 + cos(e_i, e_j)) / 2 over its sum along row i,
    on the embeddings e. A sample whose embedding is zero has cosine 0 with all.

    Section 3 of the paper: Kullback-Leibler divergence of distributions made with the cosine kernel.
    The mean over N^2 in place of the sum, i = j in the rows, and 1e-7 added inside the logarithms are as
    in the authors' code; beta is that of RepDistiller (Tian et al., ICLR 2020).
    """

    beta = 30000.0

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        s, t = _probabilities(student.embedding), _probabilities(teacher.embedding)
        return (t * ((t + EPSILON).log() - (s + EPSILON).log())).mean()


def _probabilities(embedding: Tensor) -> Tensor:
    """[N, C] -> [N, N], rows of sum 1."""
    directions = unit(embedding, dim=1)
    # Rounding may give a cosine below -1, and the logarithm needs values of at least 0.
    kernel = ((directions @ directions.T + 1) / 2).clamp(min=0)
    return kernel / kernel.sum(1, keepdim=True)
