"""FT: factor transfer (Kim, Park and Kwak, NeurIPS 2018, "Paraphrasing Complex Network")."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d, mse_loss, normalize

from training.distillers.base import Distiller
from training.models.multi_exit import Outputs
from training.objectives.criterion import Batch, Setting
from training.recipes.schema import DistillerObjective

SLOPE = 0.1


class FactorTransfer(Distiller):
    """L_m = mean |q(F_s) - q(F_t)|, where q(F) is the channel mean of F^2 at every position, scaled to
    length 1, and F_t, F_s [N, C_t / 2, H, W] are the factors that a paraphraser and a translator
    compute from the last stage's features.

    Before the training proper the paraphraser, an autoencoder of three convolutions each way, learns
    to reproduce the teacher's features (mean squared error). Afterwards it is frozen, and the
    translator is trained with the student. The paper's section on factor transfer, in the form of the
    comparison of Tian et al. 2020, with its beta and 30 epochs: its q has squares and a channel mean,
    the paper's has not. Of maps of two sizes the larger is pooled to the smaller.
    """

    beta = 200.0
    preparation = 30

    def __init__(
        self, objective: DistillerObjective, student: Outputs, teacher: Outputs, setting: Setting
    ) -> None:
        super().__init__(objective, student, teacher, setting)
        wide = teacher.features[-1].shape[1]
        factor = wide // 2
        self.paraphraser = nn.ModuleDict(
            {
                "encode": _encoder(wide, factor, norm=False),
                "decode": nn.Sequential(
                    *_up(factor, factor),
                    *_up(factor, wide),
                    *_up(wide, wide),
                ),
            }
        )
        self.translator = _encoder(student.features[-1].shape[1], factor, norm=True)

    def prepared(self) -> list[nn.Module]:
        return [self.paraphraser]

    def preparing_term(self, student: Outputs | None, teacher: Outputs, batch: Batch) -> Tensor:
        features = teacher.features[-1]
        encode, decode = self.paraphraser["encode"], self.paraphraser["decode"]
        return mse_loss(decode(encode(features)), features)

    def term(self, student: Outputs, teacher: Outputs, batch: Batch) -> Tensor:
        s = self.translator(student.features[-1])
        t = self.paraphraser["encode"](teacher.features[-1])
        size = (min(s.shape[2], t.shape[2]), min(s.shape[3], t.shape[3]))
        return (_profile(s, size) - _profile(t, size)).abs().mean()


def _profile(factor: Tensor, size: tuple[int, int]) -> Tensor:
    return normalize(adaptive_avg_pool2d(factor, size).square().mean(1).flatten(1), dim=1)


def _encoder(cin: int, cout: int, norm: bool) -> nn.Sequential:
    return nn.Sequential(*_down(cin, cin, norm), *_down(cin, cout, norm), *_down(cout, cout, norm))


def _down(cin: int, cout: int, norm: bool) -> list[nn.Module]:
    after: list[nn.Module] = [nn.BatchNorm2d(cout)] if norm else []
    return [nn.Conv2d(cin, cout, 3, 1, 1), *after, nn.LeakyReLU(SLOPE)]


def _up(cin: int, cout: int) -> list[nn.Module]:
    return [nn.ConvTranspose2d(cin, cout, 3, 1, 1), nn.LeakyReLU(SLOPE)]
