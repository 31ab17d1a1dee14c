"""What stages answer on the held-out and the test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from exports.bundle.manifest import Accuracy
from exports.bundle.policy import Floats, Scaling, running_ensemble
from exports.bundle.reader import Table, stored
from exports.source import Data
from exports.stage_runner import StageRunner
from exports.tuning.certificate import halves
from exports.tuning.scaling import fit_scaling


@dataclass(frozen=True)
class Measured:
    """Every exit's logits on both splits, and the temperatures and weights fitted on the half of the
    held-out one that no policy is certified on."""

    held_out: Table
    test: Table
    scaling: Scaling

    def accuracies(self, table: Table) -> tuple[Accuracy, ...]:
        """Accuracies of every exit on `table`, one of the two."""
        return tuple(
            Accuracy(single=_percent(own, table), running=_percent(ensemble, table))
            for own, ensemble in (
                (logits, running_ensemble(list(table.logits), k, self.scaling.weights))
                for k, logits in enumerate(table.logits, 1)
            )
        )


def measure(stages: Sequence[bytes], data: Data) -> Measured:
    """Run `stages` on both splits."""
    runner = StageRunner(stages)
    held_out = stored(Table(runner.logits(data.held_out.images), data.held_out.labels))
    test = Table(runner.logits(data.test.images), data.test.labels)
    first, _ = halves(len(held_out.labels))
    return Measured(held_out, test, fit_scaling(held_out.take(first)))


def _percent(logits: Floats, table: Table) -> float:
    return round(100 * float((logits.argmax(axis=-1) == table.labels).mean()), 2)
