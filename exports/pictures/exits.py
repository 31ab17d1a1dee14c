"""`offramp picture exits`: the exits compared, and what their ensemble gains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from exports.pictures.table import BundleTable
from offramp.figures import BLUE, GREY, INK, ORANGE, PALE

Classes = NDArray[np.int64]
Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Gain:
    """The ensemble compared with one exit, as shares of all samples: `won` are wrong at the exit and
    correct in the ensemble, `lost` the reverse."""

    won: float
    lost: float

    @property
    def net(self) -> float:
        """The difference of the two accuracies."""
        return self.won - self.lost


def agreement(predictions: Classes) -> Shares:
    """The share of samples on which each pair of M classifiers gives the same class.

    predictions [M, N] -> [M, M], symmetric, with ones on the diagonal.
    """
    shares: Shares = (predictions[:, None] == predictions[None]).mean(axis=2)
    return shares


def gain(ensemble: NDArray[np.bool_], single: NDArray[np.bool_]) -> Gain:
    """The gain from the correct answers of the ensemble and of one exit, both bool [N]."""
    return Gain(float((ensemble & ~single).mean()), float((single & ~ensemble).mean()))


def first_correct_exit(correct: NDArray[np.bool_]) -> Classes:
    """The first exit (1-based) with the correct answer, 0 if there is none: bool [K, N] -> [N]."""
    return np.where(correct.any(axis=0), correct.argmax(axis=0) + 1, 0)


def draw_exits(data: BundleTable) -> Figure:
    """Four panels computed from a bundle's calibration table."""
    singles = list(data.table.logits)
    ensembles = [data.running(k) for k in range(1, data.exits + 1)]
    correct = np.stack([data.correct(logits) for logits in singles])
    running = np.stack([data.correct(logits) for logits in ensembles])
    layout = ConstrainedLayoutEngine(h_pad=0.12, w_pad=0.12)
    figure = Figure(figsize=(9.5, 7.6), layout=layout)
    grid = figure.subplots(2, 2)
    figure.suptitle(
        f"The exits of {data.manifest.name}: {data.split}", size=12, color=INK, parse_math=False
    )
    _draw_agreement(
        grid[0, 0], agreement(np.stack([z.argmax(axis=-1) for z in (*singles, ensembles[-1])]))
    )
    _draw_accuracies(grid[0, 1], correct.mean(axis=1), running.mean(axis=1))
    _draw_gains(grid[1, 0], [gain(running[-1], exit_correct) for exit_correct in correct])
    _draw_first_correct(grid[1, 1], correct)
    return figure


def _draw_agreement(axes: Any, shares: Shares) -> None:
    exits = len(shares) - 1
    names = [*(str(k) for k in range(1, exits + 1)), "ens."]
    low = min(np.floor(10 * shares.min()) / 10, 0.9)
    axes.imshow(100 * shares, cmap="cividis", vmin=100 * low, vmax=100)
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            dark = share < (low + 1) / 2
            axes.text(
                j, i, f"{100 * share:.0f}", ha="center", va="center", color="w" if dark else "k"
            )
    axes.set_xticks(range(exits + 1), names)
    axes.set_yticks(range(exits + 1), names)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set(xlabel="exit", ylabel="exit")
    axes.set_title("Same answer, % of samples", size=10)


def _draw_accuracies(axes: Any, singles: Shares, running: Shares) -> None:
    exits = np.arange(1, len(singles) + 1)
    axes.plot(exits, 100 * singles, "o-", color=BLUE, label="exit k alone")
    axes.plot(exits, 100 * running, "s--", color=ORANGE, label="ensemble of exits 1 to k")
    axes.set_xticks(exits)
    axes.set(xlabel="exit k", ylabel="accuracy, %")
    axes.set_title("Accuracy", size=10)
    axes.legend(frameon=False, loc="lower right")
    _style(axes)


def _draw_gains(axes: Any, gains: list[Gain]) -> None:
    exits = np.arange(1, len(gains) + 1)
    won = np.array([100 * change.won for change in gains])
    lost = np.array([100 * change.lost for change in gains])
    axes.bar(exits, won, 0.6, color=BLUE, label="wrong at the exit, correct in the ensemble")
    axes.bar(exits, -lost, 0.6, color=ORANGE, label="correct at the exit, wrong in the ensemble")
    axes.axhline(0, color=INK, linewidth=0.8)
    top = max(won.max(), lost.max(), 0.1)
    for k, change, height in zip(exits, gains, won, strict=True):
        net = f"{100 * change.net:+.1f}".replace("-", "\N{MINUS SIGN}")
        axes.text(k, height + 0.03 * top, net, ha="center", color=INK)
    axes.set_ylim(-lost.max() - 0.1 * top, won.max() + 0.5 * top)
    axes.set_xticks(exits)
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(lambda share, _: f"{abs(share):g}")
    axes.set(xlabel="exit", ylabel="% of samples")
    axes.set_title("What the ensemble of all exits gains over each, net in points", size=10)
    axes.legend(frameon=False, loc="upper right")
    _style(axes)


def _draw_first_correct(axes: Any, correct: NDArray[np.bool_]) -> None:
    exits = len(correct)
    first = first_correct_exit(correct)
    kept = [100 * float((correct[-1] & (first == k)).mean()) for k in range(1, exits + 1)]
    lost = [100 * float((~correct[-1] & (first == k)).mean()) for k in range(1, exits + 1)]
    never = 100 * float((first == 0).mean())
    positions = np.arange(1, exits + 1)
    axes.bar(positions, kept, 0.6, color=BLUE, label=f"and correct at exit {exits}")
    axes.bar(positions, lost, 0.6, bottom=kept, color=ORANGE, label=f"but wrong at exit {exits}")
    axes.bar([exits + 1], [never], 0.6, color=PALE)
    heights = [*(a + b for a, b in zip(kept, lost, strict=True)), never]
    for position, height in enumerate(heights, 1):
        axes.text(position, height + 0.02 * max(heights), f"{height:.1f}", ha="center", color=INK)
    axes.set_ylim(0, 1.12 * max(heights))
    axes.set_xticks(range(1, exits + 2), [*(str(k) for k in positions), "never"])
    axes.set(xlabel="first correct at exit", ylabel="% of samples")
    axes.set_title("First exit with the correct answer", size=10)
    axes.legend(frameon=False, loc="upper right")
    _style(axes)


def _style(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.grid(axis="y", alpha=0.25)
    axes.set_axisbelow(True)
