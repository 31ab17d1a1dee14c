"""Policies of all replicas: one order of revisions, across restarts of replicas and of the policy store."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exports.bundle.policy import Policy
from serving.errors import RevisionConflictError
from serving.ray.policy_store import Key, PolicyStore, VersionedPolicy

OLD = Key("net", "old bundle")
NEW = Key("net", "new bundle")
STORED = Policy(thresholds=(0.5, 0.5), max_exit=3)


def policy(threshold: float) -> Policy:
    return Policy(thresholds=(threshold, threshold), max_exit=3)


def test_the_first_replica_sets_the_policy_of_its_bundle() -> None:
    assert PolicyStore().join(OLD, STORED, None) == VersionedPolicy(1, STORED)


def test_a_configured_policy_overrides_that_of_the_bundle() -> None:
    assert PolicyStore().join(OLD, STORED, policy(0.7)) == VersionedPolicy(1, policy(0.7))


def test_a_replica_that_starts_later_gets_the_changed_policy() -> None:
    policy_store = PolicyStore()
    policy_store.join(OLD, STORED, policy(0.7))
    changed = policy_store.put(OLD, policy(0.9))
    assert changed == VersionedPolicy(2, policy(0.9))
    assert policy_store.join(OLD, STORED, policy(0.7)) == changed


def test_a_newly_configured_policy_replaces_a_changed_one() -> None:
    policy_store = PolicyStore()
    policy_store.join(OLD, STORED, policy(0.7))
    policy_store.put(OLD, policy(0.9))
    assert policy_store.join(OLD, STORED, policy(0.8)) == VersionedPolicy(3, policy(0.8))
    assert policy_store.join(OLD, STORED, policy(0.8)) == VersionedPolicy(3, policy(0.8))


def test_two_bundles_of_one_name_have_their_own_policies_and_share_revisions() -> None:
    policy_store = PolicyStore()
    policy_store.join(OLD, STORED, None)
    assert policy_store.join(NEW, policy(0.6), None) == VersionedPolicy(2, policy(0.6))
    assert policy_store.put(OLD, policy(0.9)).revision == 3
    assert policy_store.get(NEW) == VersionedPolicy(2, policy(0.6))


@pytest.mark.parametrize("if_match", ['"1"', '"3"', "nonsense"])
def test_a_change_of_another_revision_is_refused(if_match: str) -> None:
    policy_store = PolicyStore()
    policy_store.join(OLD, STORED, None)
    policy_store.put(OLD, policy(0.9))
    with pytest.raises(RevisionConflictError, match="revision 2"):
        policy_store.check(OLD, if_match)


@pytest.mark.parametrize("if_match", ['"2"', '"1", "2"', "*", None])
def test_a_change_of_the_current_revision_is_accepted(if_match: str | None) -> None:
    policy_store = PolicyStore()
    policy_store.join(OLD, STORED, None)
    policy_store.put(OLD, policy(0.9))
    policy_store.check(OLD, if_match)


def test_a_follower_gets_the_policies_that_are_newer() -> None:
    policy_store = PolicyStore()
    policy_store.join(OLD, STORED, None)
    assert policy_store.updates({OLD: 1}) == {}
    changed = policy_store.put(OLD, policy(0.9))
    assert policy_store.updates({OLD: 1}) == {OLD: changed}


def test_a_policy_store_that_lost_its_state_asks_replicas_to_join_again() -> None:
    assert PolicyStore().updates({OLD: 4}) is None
    behind = PolicyStore()
    behind.join(OLD, STORED, None)
    assert behind.updates({OLD: 4}) is None


@given(st.permutations([1, 2, 3, 4]), st.integers(0, 4))
def test_after_a_restart_the_latest_revision_wins_in_any_order(
    order: list[int], new_replica: int
) -> None:
    policy_store = PolicyStore()
    for place, revision in enumerate(order):
        if place == new_replica:
            policy_store.join(OLD, STORED, None)
        policy_store.join(OLD, STORED, None, known=VersionedPolicy(revision, policy(revision / 10)))
    assert policy_store.get(OLD) == VersionedPolicy(4, policy(0.4))
    assert policy_store.put(OLD, STORED).revision == 5


def test_a_configured_policy_is_known_again_after_a_restart() -> None:
    policy_store = PolicyStore()
    policy_store.join(OLD, STORED, policy(0.7), known=VersionedPolicy(6, policy(0.9)))
    assert policy_store.join(OLD, STORED, policy(0.7)) == VersionedPolicy(6, policy(0.9))
