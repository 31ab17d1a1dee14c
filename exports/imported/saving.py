"""What a bundle saves beside its last network alone, and whether that is worth a second network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from exports.bundle.errors import ExportError
from exports.pipeline import Written
from exports.source import Source

# A second network takes memory and time to load, which a smaller saving does not pay for.
MIN_SAVING = 0.05


def check_saving(
    what: str,
    written: Written,
    source: Source,
    last: Path,
    milliseconds: Sequence[float],
    allow_no_saving: bool,
) -> str:
    """What the default policy costs beside the network `last` alone, or beside the ensemble if agreement with
    that is the target, as a sentence without its full stop.

    Raises ExportError, with the figures, if that saves less than MIN_SAVING and `allow_no_saving` is not set;
    `what` is what saves too little.
    """
    choice = written.choice
    macs = [stage.macs for stage in source.stages]

    def mean_cost(costs: Sequence[float]) -> float:
        upto = np.cumsum(costs).tolist()
        return choice.stats.mean_cost(choice.policy.costs(written.manifest.inputs, upto))

    mean, mean_ms = mean_cost(macs), mean_cost(milliseconds)
    whole, whole_ms, test = macs[-1], milliseconds[-1], written.manifest.exits[-1].test
    beside, alone = f"{last} alone", test.single
    if source.data.reference == "ensemble":
        whole, whole_ms = sum(macs), sum(milliseconds)
        beside, alone = "the ensemble of all networks", test.running
    saving = 1 - mean / whole
    accuracy = written.manifest.provenance.test_default.accuracy
    measured = "accuracy" if source.data.target == "labels" else "agreement with it"
    *before, own = (len(stage.onnx) / 1e6 for stage in source.stages)
    sentence = (
        f"the default policy takes {mean / 1e6:.4g} M MACs an image (about {mean_ms:.3g} ms here), and "
        f"{beside} {whole / 1e6:.4g} M ({whole_ms:.3g} ms), {saved_share(mean, whole)}; "
        f"{measured} {accuracy:.2f} % and {alone:.2f} %; what runs before {last.name} takes "
        f"{sum(before):.3g} MB of memory beside its {own:.3g} MB"
    )
    if mean_ms >= whole_ms:
        sentence += "; it is not faster here"
    if saving < MIN_SAVING and not allow_no_saving:
        notes = " ".join(written.choice.notes)
        raise ExportError(
            f"the {what} saves less than {MIN_SAVING:.0%}: {sentence}; no bundle was written "
            f"(--allow-no-saving writes it anyway).{' ' + notes if notes else ''}"
        )
    return sentence


def saved_share(mean: float, whole: float) -> str:
    """What `mean` MACs an image save beside `whole`, or how much less `whole` takes, in words."""
    if mean <= whole:
        return f"which saves {1 - mean / whole:.0%}"
    return f"which is {1 - whole / mean:.0%} less"
