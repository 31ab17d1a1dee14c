"""Measures stages on the held-out and the test split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from exports.bundle.manifest import Accuracy
from exports.bundle.policy import Floats, Scaling, running_ensemble
from exports.bundle.reader import Table, as_stored
from exports.evaluation_data import EvaluationData
from exports.stage_runner import StageRunner
from exports.tuning.certificate import divide
from exports.tuning.scaling import fit_agreement, fit_scaling
from exports.tuning.search import full_depth
from exports.tuning.simulation import simulate


@dataclass(frozen=True)
class Measurement:
    """The logits of every exit on both splits, and the temperatures and weights fitted on the part of
    the held-out split on which no policy is certified."""

    held_out: Table
    test: Table
    scaling: Scaling

    def with_own_answers(self) -> Measurement:
        """The same with the answers of its own last network for labels, as agreement is measured with.

        After a conversion these are not always those of the network before it.
        """

        def relabelled(table: Table) -> Table:
            everything = full_depth(len(table.logits))
            return Table(table.logits, simulate(everything, table.logits, self.scaling).predictions)

        return replace(self, held_out=relabelled(self.held_out), test=relabelled(self.test))

    def accuracies(self, table: Table) -> tuple[Accuracy, ...]:
        """The accuracy of every exit on `table`, which is `held_out` or `test`."""
        return tuple(
            Accuracy(
                single=_percent(logits, table),
                running=_percent(
                    running_ensemble(list(table.logits), k, self.scaling.weights), table
                ),
            )
            for k, logits in enumerate(table.logits, 1)
        )


def measure(
    stages: Sequence[bytes], data: EvaluationData, served: Sequence[bytes] | None = None
) -> Measurement:
    """Run `stages` on both splits; if others are `served`, these on the test split.

    `served` may have been trained on the held-out split, so they are never run on a part of it. Raises
    ExportError if logits lie too far apart for a calibration table.
    """
    runner = StageRunner(stages)
    held_out = as_stored(Table(runner.logits(data.held_out.images), data.held_out.labels))
    if served is not None and data.counts["test"]:
        runner = StageRunner(served)
    test = Table(runner.logits(data.test.images), data.test.labels)
    first, _ = divide(len(held_out.labels))
    fitted_on = held_out.take(first)
    labelled = data.target == "labels"
    scaling = fit_scaling(fitted_on) if labelled else fit_agreement(fitted_on, data.reference)
    return Measurement(held_out, test, scaling)


def _percent(logits: Floats, table: Table) -> float:
    return round(100 * float((logits.argmax(axis=-1) == table.labels).mean()), 2)
