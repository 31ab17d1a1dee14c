"""The model card agrees with the manifest, whatever names that contains."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from exports.bundle.manifest import Accuracy, Conversion, Manifest
from exports.bundle.policy import Policy
from exports.bundle.reader import load_bundle
from exports.bundle.untrusted.safe_files import one_line
from exports.card.markup import markdown_text, yaml_string
from exports.card.model_card import MAX_LABELS, model_card
from tests.exports.policies import CERTIFICATE

RECIPE = {
    "name": "tiny-recipe",
    "network": {"name": "resnet18", "width": 8},
    "objective": {"method": "oto"},
    "teacher": {"recipe": "tiny-teacher"},
    "train": {"epochs": 3},
}
# Surrogates cannot be encoded in UTF-8.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="session")
def manifest(bundle_path: Path) -> Manifest:
    found = load_bundle(bundle_path).manifest
    provenance = found.provenance.model_copy(update={"recipe": RECIPE, "dataset": "ants"})
    return found.model_copy(update={"provenance": provenance})


@pytest.fixture(scope="session")
def policy(bundle_path: Path) -> Policy:
    return load_bundle(bundle_path).policy


def front_matter(card: str) -> dict[str, object]:
    start, matter, _ = card.split("---\n", 2)
    assert start == ""
    found = yaml.safe_load(matter)
    assert isinstance(found, dict)
    return found


def body(card: str) -> str:
    return card.split("---\n", 2)[2]


def filled_with(manifest: Manifest, text: str) -> Manifest:
    """The manifest with `text` in every free field; not validated on purpose."""
    recipe = {
        "name": text,
        "network": {"name": text, "width": 8},
        "objective": {"method": text},
        "teacher": {"recipe": text},
        "train": {"epochs": 3},
    }
    provenance = manifest.provenance.model_copy(
        update={"dataset": text, "recipe": recipe, "tools": {text: text}, "splits": {text: 1}}
    )
    labels = (text, *manifest.labels[1:])
    return manifest.model_copy(
        update={"name": text, "version": text, "labels": labels, "provenance": provenance}
    )


def test_the_front_matter_has_the_fields_that_the_hub_reads(
    manifest: Manifest, policy: Policy
) -> None:
    found = front_matter(model_card(manifest, policy, "apache-2.0"))
    assert found["license"] == "apache-2.0"
    assert found["library_name"] == "offramp"
    assert found["pipeline_tag"] == "image-classification"
    assert found["datasets"] == ["ants"]
    assert found["metrics"] == ["accuracy"]
    assert {"onnx", "early-exit"} <= set(found["tags"])  # type: ignore[call-overload]


def test_the_model_index_has_every_exits_accuracy(manifest: Manifest, policy: Policy) -> None:
    [entry] = front_matter(model_card(manifest, policy))["model-index"]  # type: ignore[misc]
    assert entry["name"] == manifest.name
    [result] = entry["results"]
    assert result["task"] == {"type": "image-classification"}
    assert result["dataset"] == {"name": "ants", "type": "ants", "split": "test"}
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert all(metric["type"] == "accuracy" for metric in result["metrics"])
    for k, exit_ in enumerate(manifest.exits, 1):
        assert values[f"accuracy of exit {k}, %"] == exit_.test.single
    assert values["accuracy of ensemble of exits 1 to 2, %"] == manifest.exits[1].test.running
    assert values["accuracy of ensemble of all exits, %"] == manifest.exits[2].test.running
    assert values["accuracy of default policy, %"] == manifest.provenance.test_default.accuracy


@given(TEXT)
def test_any_text_is_a_yaml_string(text: str) -> None:
    assert yaml.safe_load(f"key: {yaml_string(text)}\nnext: 1") == {"key": text, "next": 1}


def leaves(tokens: list[Token]) -> list[Token]:
    return [leaf for t in tokens for leaf in (leaves(t.children) if t.children else [t])]


@given(TEXT)
def test_any_text_is_shown_literally_by_markdown(text: str) -> None:
    shown = one_line(text).strip()
    for frame in ("before {} after", "- {}", "| a |\n|---|\n| {} |", "# {}"):
        rendered = leaves(MarkdownIt().enable("table").parse(frame.format(markdown_text(text))))
        assert not any(t.type in ("html_inline", "html_block", "link_open") for t in rendered)
        words = "".join(t.content for t in rendered if t.type == "text")
        assert shown in words


@settings(max_examples=30)
@given(TEXT.filter(bool))
def test_no_name_changes_the_structure_of_the_card(
    manifest: Manifest, policy: Policy, text: str
) -> None:
    def structure(card: str) -> list[str]:
        tokens = leaves(MarkdownIt().enable("table").parse(body(card)))
        return [t.type for t in tokens if t.type not in ("text", "inline", "softbreak")]

    card = model_card(filled_with(manifest, text), policy)
    assert front_matter(card)["datasets"] == [text]
    assert structure(card) == structure(model_card(manifest, policy))


def test_the_card_shows_the_certificate_if_there_is_one(manifest: Manifest, policy: Policy) -> None:
    assert "With probability" not in model_card(manifest, policy)
    card = model_card(manifest, policy.model_copy(update={"certificate": CERTIFICATE}))
    text = "".join(t.content for t in leaves(MarkdownIt().parse(body(card))))
    assert CERTIFICATE.sentence in text


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("labels", "the accuracy is at most 0.5 points below the ensemble's on new images"),
        ("agreement", "at most 0.5 % of the answers are not the ensemble's on new images"),
    ],
)
def test_a_certificate_is_one_plain_sentence(target: str, says: str) -> None:
    sentence = CERTIFICATE.model_copy(update={"target": target}).sentence
    assert sentence.startswith("With probability 95 %, ")
    assert says in sentence
    assert sentence.endswith(".")
    assert "chosen on 2,500 samples, certified on 2,500 others" in sentence


def test_the_card_of_a_converted_bundle_has_the_accuracy_before(
    manifest: Manifest, policy: Policy
) -> None:
    before = (Accuracy(single=51.25, running=61.75),) * len(manifest.exits)
    conversion = Conversion.model_construct(
        scheme="u8s8", images=512, kept=("stage1/conv",), held_out=before, test=before
    )
    converted = manifest.model_copy(update={"precision": "int8", "conversion": conversion})
    card = model_card(converted, policy)
    assert "| 1 | 51.25, 61.75 | 50.00, 60.00 |" in card
    assert "u8s8, ranges from 512 held-out images" in card


def test_of_many_labels_only_some_are_listed(manifest: Manifest, policy: Policy) -> None:
    labels = tuple(f"class{index}" for index in range(1000))
    card = model_card(manifest.model_copy(update={"labels": labels}), policy)
    assert f"and {1000 - MAX_LABELS} more." in card
    assert len(card) < 10_000


@pytest.mark.parametrize("recipe", [{}, RECIPE | {"network": "resnet18"}, {"name": "a|b"}])
def test_a_recipe_that_says_less_is_named(
    manifest: Manifest, policy: Policy, recipe: dict[str, object]
) -> None:
    provenance = manifest.provenance.model_copy(update={"recipe": recipe})
    card = model_card(manifest.model_copy(update={"provenance": provenance}), policy)
    assert "of which the bundle does not say more" in card
