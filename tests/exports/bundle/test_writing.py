"""policy.json as it is written."""

from __future__ import annotations

import json

from exports.bundle.policy import Policy
from exports.bundle.writing import policy_json


def test_a_policy_that_is_never_unsure_has_no_field_that_earlier_versions_refuse() -> None:
    policy = Policy(thresholds=(0.5,), max_exit=2)
    assert "reject_below" not in json.loads(policy_json(policy))
    assert Policy.model_validate_json(policy_json(policy)) == policy


def test_a_policy_that_may_be_unsure_says_below_what() -> None:
    policy = Policy(thresholds=(0.5,), max_exit=2, reject_below=0.4)
    assert json.loads(policy_json(policy))["reject_below"] == 0.4
    assert Policy.model_validate_json(policy_json(policy)) == policy
