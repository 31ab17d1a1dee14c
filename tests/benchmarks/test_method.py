"""The analysis of a table's rows: figures of a run, paired differences, and the answers."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import t

from benchmarks.method.compare import Row, difference
from benchmarks.method.measure import BUDGETS, figures, pack, unpack
from benchmarks.method.picture import draw
from benchmarks.method.section import rows_of, section
from exports.bundle.reader import Table

IMAGES, CLASSES = 400, 5
MACS = (10, 30, 100)


def table(accuracies: tuple[float, ...], seed: int) -> Table:
    """Logits whose exits are right with these probabilities."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, IMAGES)
    logits = rng.normal(0, 0.3, (len(accuracies), IMAGES, CLASSES)).astype(np.float32)
    difficulty = rng.random(IMAGES)
    for exit_, accuracy in zip(logits, accuracies, strict=True):
        right = difficulty < accuracy
        answers = np.where(right, labels, (labels + 1) % CLASSES)
        exit_[np.arange(IMAGES), answers] += 2 + 3 * (accuracy - difficulty)
    return Table(logits, labels)


def run(accuracies: tuple[float, ...], seed: int) -> dict[str, Any]:
    macs = MACS[-len(accuracies) :]
    return figures(table(accuracies, seed), table(accuracies, 100 + seed), macs)


def result(**rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "protocol": "test",
        "rows": {
            key.replace("_", "-"): {"title": key, "runs": {str(k): r for k, r in enumerate(runs)}}
            for key, runs in rows.items()
        },
    }


def test_bits_are_packed_without_loss() -> None:
    correct = np.random.default_rng(0).random(1_003) < 0.3
    assert (unpack(pack(correct), 1_003) == correct).all()


def test_a_run_has_every_exit_both_ensembles_and_early_exits() -> None:
    found = run((0.5, 0.7, 0.9), 1)
    assert len(found["exits"]) == 3
    for column, accuracy in enumerate((*found["exits"], found["ensemble"], found["fitted"])):
        assert accuracy == 100 * unpack(found["correct"][column], IMAGES).mean()
    early = dict(zip(BUDGETS, found["early"], strict=True))
    assert early[1.0]["accuracy"] == pytest.approx(found["fitted"], abs=1)
    assert all(point["cost"] <= share + 0.1 for share, point in early.items() if point)
    assert run((0.9,), 1)["early"] == []


def test_a_difference_pairs_seeds_and_images() -> None:
    """By hand: two seeds, four images."""
    better = [[1, 1, 1, 0], [1, 1, 0, 0]]
    other = [[0, 1, 1, 0], [0, 0, 0, 0]]
    rows = [
        Row(
            "row",
            "title",
            {
                seed: {"exits": [0], "images": 4, "correct": [pack(np.array(bits, bool))]}
                for seed, bits in enumerate(seeds)
            },
        )
        for seeds in (better, other)
    ]
    found = difference(rows[0], rows[1], 0)
    assert found is not None
    assert found.mean == pytest.approx(37.5)
    each_seed = np.array([25.0, 50.0])
    assert found.seeds == pytest.approx(t.ppf(0.975, 1) * each_seed.std(ddof=1) / math.sqrt(2))
    each_image = np.array([100.0, 50.0, 0.0, 0.0])
    assert found.images == pytest.approx(1.959964 * each_image.std(ddof=1) / 2)
    assert not found.clear
    alone = difference(Row("a", "a", {0: rows[0].runs[0]}), rows[1], 0)
    assert alone is not None
    assert (alone.mean, alone.seeds) == (25, None)
    assert difference(Row("a", "a", {7: rows[0].runs[0]}), rows[1], 0) is None


def test_clear_differences_are_the_answers(tmp_path: Path) -> None:
    rows = result(
        baseline=[run((0.8,), seed) for seed in range(3)],
        kd=[run((0.9,), seed) for seed in range(3)],
        multi_exit=[run((0.5, 0.6, 0.8), seed) for seed in range(3)],
        multi_exit_autoaugment=[run((0.5, 0.65, 0.8), seed) for seed in range(3)],
        mskd=[run((0.7, 0.6, 0.8), seed) for seed in range(3)],
        oto=[run((0.7, 0.75, 0.8), seed) for seed in range(3)],
    )
    text = section(json.loads(json.dumps(rows)))
    (taught,) = (line for line in text.splitlines() if "Does a teacher help" in line)
    assert "Better at exit 1, exit 2" in taught
    assert "exit 3" not in taught.split(".")[0]
    assert "more than AutoAugment does at: exit 1, exit 2" in taught
    (beats,) = (line for line in text.splitlines() if "one-to-one beat" in line)
    assert "Better at exit 2" in beats
    assert re.search(r"\| baseline \| 3 \| - \| - \| \d\d\.\d\d ± \d", text)
    assert re.search(
        r"\(KD - cross-entropy\) \| - \| - \| \*\*\+\d+\.\d\d \(.*\)\*\* \| - \| - \|", text
    )
    draw(list(rows_of(rows).values()), tmp_path / "method.png")
    assert (tmp_path / "method.png").stat().st_size > 10_000


def test_what_is_not_measured_is_not_answered() -> None:
    assert section(result(baseline=[])) == "No row is measured yet.\n"
    text = section(result(oto=[run((0.5, 0.6, 0.8), 0)]))
    assert "teacher help" not in text
    assert "**What the ensemble gains over the best exit**, oto" in text
