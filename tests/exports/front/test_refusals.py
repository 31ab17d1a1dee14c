"""What `offramp front` refuses, each in one sentence, before anything is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.commands import call
from tests.exports.front.conftest import Stock
from tests.exports.imported.classifiers import CLASSES, write_classifier, write_images


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 images in no subfolder."""
    return write_images(tmp_path_factory.mktemp("flat") / "photos", 30, labelled=False)


def refused(where: Path, *arguments: object) -> str:
    """The sentence on stderr of `offramp front`, which left nothing in the empty directory `where`."""
    done = call(*arguments, "--runs", where / "runs", "-o", where / "bundle")
    assert done.code == 2, done.out
    assert len(done.err.splitlines()) == 1
    assert list(where.iterdir()) == []
    return done.err


def test_a_network_that_is_too_cheap_for_any_front(flat: Path, tmp_path: Path) -> None:
    cheap = write_classifier(tmp_path / "given" / "cheap.onnx", width=16)
    labels = tmp_path / "given" / "labels.txt"
    labels.write_text("\n".join(CLASSES))
    options = ("--labels", labels, "--preprocess", "imagenet", "--data", flat, "--unlabelled")
    where = tmp_path / "out"
    where.mkdir()
    error = refused(where, "front", cheap, *options)
    assert "no front is cheap enough: the cheapest takes 0.982 M MACs an image, more than 25%" in (
        error
    )


def test_images_without_folders_and_without_the_option(
    stock: Stock, flat: Path, tmp_path: Path
) -> None:
    assert "add --unlabelled" in refused(tmp_path, *stock.options, "--data", flat)


def test_folders_that_are_no_classes(stock: Stock, flat: Path, tmp_path: Path) -> None:
    (flat / "2026").mkdir(exist_ok=True)
    write_images(flat.parent / "other" / "2026", 30, labelled=False)
    error = refused(tmp_path, *stock.options, "--data", flat.parent / "other")
    assert "2026 has the name of no class" in error


def test_too_few_images(stock: Stock, tmp_path: Path) -> None:
    few = write_images(tmp_path / "few", 10, labelled=False)
    where = tmp_path / "out"
    where.mkdir()
    error = refused(where, *stock.options, "--data", few, "--unlabelled")
    assert "40 images; at least 100 are needed" in error


def test_a_directory_that_does_not_exist(stock: Stock, tmp_path: Path) -> None:
    error = refused(tmp_path, *stock.options, "--data", tmp_path / "none", "--unlabelled")
    assert "none is not a directory" in error


def test_images_to_calibrate_on_that_the_front_learns_from(
    stock: Stock, flat: Path, tmp_path: Path
) -> None:
    place = tmp_path / "others"
    others = write_images(place, 30, seed=5, labelled=False)
    (others / "copied.png").write_bytes((flat / "00007.png").read_bytes())
    where = tmp_path / "out"
    where.mkdir()
    options = ("--data", flat, "--unlabelled", "--calibrate", others)
    error = refused(where, *stock.options, *options)
    assert f"1 of the 121 images in {others} are also in {flat}" in error
    assert "copied.png" in error


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--agreement", 0.5), "--agreement must be more than 0.5"),
        (("--agreement", 99), "--agreement must be more than 0.5"),
        (("--confidence", 1), "--confidence must be more than 0.5"),
        (("--crop", 0), "--crop must be more than 0"),
        (("--mean", "0,0,0"), "give both for each network"),
        (("--target", "u8s8"), "add --precision int8"),
    ],
)
def test_options_out_of_range(
    stock: Stock, flat: Path, tmp_path: Path, options: tuple[object, ...], sentence: str
) -> None:
    arguments = (*stock.options, "--data", flat, "--unlabelled", *options)
    assert sentence in refused(tmp_path, *arguments)


def test_without_an_output_there_is_only_a_dry_run(stock: Stock, flat: Path) -> None:
    done = call(*stock.options, "--data", flat, "--unlabelled")
    assert done.refused_in_one_sentence
    assert "-o BUNDLE" in done.err


def test_an_existing_bundle_is_kept(stock: Stock, flat: Path, tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    done = call(*stock.options, "--data", flat, "--unlabelled", "-o", tmp_path / "bundle")
    assert done.code == 2
    assert "exists already" in done.err
