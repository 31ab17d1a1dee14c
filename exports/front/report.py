"""What `offramp front` says of a bundle: its accuracy where there are labels, and its promise."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from exports.bundle.reader import load_table
from exports.front.plan import AgreementGoal
from exports.imported.photos import PhotoFolder, label_positions
from exports.pipeline import Written
from exports.tuning.certificate import halves
from exports.tuning.simulation import simulate
from training.data.answers import Answers
from training.data.load import split_held_out
from training.planning.student import StudentChoice


def accuracy_by_folders(
    bundle: Path,
    written: Written,
    pictures: PhotoFolder,
    answers: Answers,
    student: StudentChoice,
    network: Path,
) -> str | None:
    """How often policy and network are right on the pictures that certify, as a sentence; None without
    labels."""
    positions = label_positions(pictures, answers.classes)
    if positions is None:
        return None
    by_picture = {
        file.relative_to(pictures.directory).as_posix(): label
        for file, label in zip(pictures.files, positions.tolist(), strict=True)
    }
    _, held_out = split_held_out(student.recipe.data, np.array(answers.answers, np.int64))
    _, unused = halves(len(held_out))
    labels = np.array([by_picture[answers.pictures[n]] for n in held_out[unused]], np.int64)
    table = load_table(bundle, written.manifest).take(unused)
    policy, scaling = written.choice.policy, written.manifest.scaling
    found = 100 * simulate(policy, table.logits, scaling).accuracy(labels)
    alone = 100 * float((table.logits[-1].argmax(axis=1) == labels).mean())
    return (
        f"accuracy by the folders' names on {len(labels):,} held-out pictures: {found:.2f} % by the default "
        f"policy, {alone:.2f} % by {network.name} alone."
    )


def promise(written: Written, network: Path, goal: AgreementGoal) -> str:
    """The certificate in the terms of the goal, or that there is none."""
    manifest = written.manifest
    which = (
        network.name if manifest.precision == "fp32" else f"{network.name} in {manifest.precision}"
    )
    what = f"the same answer as {which} in at least {100 * goal.agreement:g} % of cases"
    if written.choice.policy.certificate is None:
        return f"Not certified: {what}."
    return f"Certified: {what}, with {100 * goal.confidence:g} % confidence, on pictures like those given."
