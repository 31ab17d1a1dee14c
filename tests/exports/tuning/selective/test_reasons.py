"""What the samples do not support is refused with a command that they do support."""

from __future__ import annotations

import re

import pytest

from exports.bundle.errors import TuningError
from exports.tuning.goal import Goal, PrecisionGoal, TuningData
from exports.tuning.scaling import fit_scaling
from exports.tuning.selective.choose import choose_precise
from tests.exports.tuning.exits import COSTS, SOURCE, table


@pytest.mark.parametrize("goal", [None, Goal("budget", 2.0)])
@pytest.mark.parametrize("confidence", [None, 0.95])
def test_a_precision_that_is_not_supported_ends_with_a_command_that_is(
    goal: Goal | None, confidence: float | None
) -> None:
    few = table(200)
    data = TuningData.from_table(few, fit_scaling(few), SOURCE)
    with pytest.raises(TuningError) as caught:
        choose_precise(data, COSTS, goal, PrecisionGoal(0.99, confidence))
    says = str(caught.value)
    assert says.endswith("`.")
    assert ". " not in says
    if confidence is not None:
        assert "can be promised with 95 % confidence" in says
        assert re.search(r"about [\d,]+ would do|of the surest answers [\d.]+ % are right", says)
    options = "" if goal is None else " --budget 2"
    found = re.search(rf"`offramp tune BUNDLE{options} --min-precision (0\.\d+)`\.$", says)
    assert found is not None, says
    supported = choose_precise(data, COSTS, goal, PrecisionGoal(float(found[1])))
    assert supported.answered is not None


def test_where_only_the_promise_is_too_much_the_same_precision_is_offered() -> None:
    few = table(600)
    data = TuningData.from_table(few, fit_scaling(few), SOURCE)
    with pytest.raises(TuningError, match=r"without a promise: `x --min-precision 0\.8`\.$"):
        choose_precise(data, COSTS, None, PrecisionGoal(0.8, 0.9999), command="x")


def test_a_drop_that_is_not_supported_is_answered_with_the_precision_in_the_command() -> None:
    few = table(200)
    data = TuningData.from_table(few, fit_scaling(few), SOURCE)
    choice = choose_precise(data, COSTS, Goal("max_drop", 0.001), PrecisionGoal(0.8))
    assert choice.stats.mean_cost(COSTS) == COSTS[-1]
    assert "`offramp tune BUNDLE --min-precision 0.8 --max-accuracy-drop" in choice.notes[0]


@pytest.mark.parametrize("drop", [0.0005, 0.02])
def test_a_drop_that_cannot_be_certified_ends_with_a_command_that_works(drop: float) -> None:
    few = table(200)
    data = TuningData.from_table(few, fit_scaling(few), SOURCE)
    with pytest.raises(TuningError) as caught:
        choose_precise(data, COSTS, Goal("max_drop", drop, 0.9), PrecisionGoal(0.7, 0.9))
    option = f"--max-accuracy-drop {100 * drop:g} --min-precision 0.7"
    assert str(caught.value).endswith(f"without a promise: `offramp tune BUNDLE {option}`.")
    assert choose_precise(data, COSTS, Goal("max_drop", drop), PrecisionGoal(0.7)).answered


def test_no_command_is_offered_that_would_certify_a_drop_as_well() -> None:
    few = table(200)
    data = TuningData.from_table(few, fit_scaling(few), SOURCE)
    choice = choose_precise(data, COSTS, None, PrecisionGoal(0.6, 0.9))
    assert choice.policy.precision_certificate is not None
    assert choice.notes[-1] == (
        "100 samples do not support a drop of 0.5 points, so no image leaves early; "
        "a drop of 0.5 points takes at least 600 samples."
    )
