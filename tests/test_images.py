"""Folders of images and the embedded ones: splits, labels, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from qubo_rounding.network.image_folder import ImageFolder, imagenet_wnids
from qubo_rounding.network.images import Images, load_images
from qubo_rounding.network.models import Network
from qubo_rounding.network.preprocessing import Preprocessing
from solvers.errors import InputError


def network(labels: str = "classes", classes: int = 2) -> Network:
    return Network(
        name="stub",
        module=nn.Identity(),
        weights="none",
        weights_hash="",
        labels=labels,
        classes=classes,
        preprocessing=Preprocessing(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    )


def fill(folder: Path, classes: list[str], each: int, suffix: str = ".png") -> None:
    """Class k gets images whose every pixel is k."""
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            image = Image.fromarray(np.full((10, 12, 3), k, dtype=np.uint8))
            image.save(folder / name / f"{i:03d}{suffix}")


def paths(images: Images) -> list[Path]:
    return [item for item in images._items if isinstance(item, Path)]


def test_a_folder_is_split_once_and_for_all(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"], 20)
    calibration, evaluation = load_images(tmp_path, network(), 15)
    again, capped = load_images(tmp_path, network(), 15, 10)
    assert len(calibration) == 15
    assert len(evaluation) == 25
    assert paths(calibration) == paths(again)
    assert paths(evaluation)[:10] == paths(capped)
    assert not set(paths(calibration)) & set(paths(evaluation))
    assert calibration.labels is not None
    assert set(calibration.labels.tolist()) == {0, 1}


def test_the_split_depends_on_relative_paths_alone(tmp_path: Path) -> None:
    for name in ("here", "there"):
        fill(tmp_path / name, ["a", "b"], 20)
    here, there = (
        load_images(tmp_path / name, network(), 15)[0] for name in ("here", "there")
    )
    assert here.digest == there.digest
    (tmp_path / "there/a/000.png").unlink()
    assert load_images(tmp_path / "there", network(), 15, 10)[1].digest != (
        load_images(tmp_path / "here", network(), 15, 10)[1].digest
    )


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_train_and_test_folders_are_kept_apart(tmp_path: Path, held_out: str) -> None:
    fill(tmp_path / "train", ["a", "b"], 6)
    fill(tmp_path / held_out, ["a", "b"], 3)
    calibration, evaluation = load_images(tmp_path, network(), 5)
    assert {p.parts[-3] for p in paths(calibration)} == {"train"}
    assert {p.parts[-3] for p in paths(evaluation)} == {held_out}
    assert (len(calibration), len(evaluation)) == (5, 6)
    with pytest.raises(InputError, match=r"train has 12 readable images: too few"):
        load_images(tmp_path, network(), 13)


def test_train_and_test_must_have_the_same_classes(tmp_path: Path) -> None:
    fill(tmp_path / "train", ["a", "b", "c"], 2)
    fill(tmp_path / "test", ["a", "c"], 2)
    with pytest.raises(InputError, match="different class folders: b is only in one"):
        load_images(tmp_path, network(), 1)


def test_batches_follow_the_labels(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"], 10)
    _, images = load_images(tmp_path, network(), 3)
    batches = list(images.batches(5))
    assert [len(batch) for batch in batches] == [5, 5, 5, 2]
    values = torch.cat(batches)
    assert values.dtype == torch.float32
    assert values.shape == (17, 3, 8, 8)
    assert images.labels is not None
    assert torch.equal((values[:, 0, 0, 0] * 255).round().long(), images.labels)


def test_wnid_folders_are_imagenet_classes(tmp_path: Path) -> None:
    fill(tmp_path, ["n01443537", "n15075141"], 3)
    _, images = load_images(tmp_path, network("imagenet", 1000), 1)
    assert images.labels is not None
    assert set(images.labels.tolist()) == {1, 999}


def test_the_wnids_are_a_thousand_in_order() -> None:
    wnids = imagenet_wnids()
    assert len(set(wnids)) == 1000
    assert wnids == sorted(wnids)
    assert (wnids[0], wnids[-1]) == ("n01440764", "n15075141")


@pytest.mark.parametrize("stranger", ["n99999999", "cats"])
def test_folders_that_are_no_imagenet_class_among_wnids(
    tmp_path: Path, stranger: str
) -> None:
    fill(tmp_path, ["n01443537", stranger], 1)
    with pytest.raises(InputError, match=f"no ImageNet classes, {stranger} for one"):
        ImageFolder(tmp_path)


CIFAR = [
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
]


@pytest.mark.parametrize(
    ("folders", "labels", "classes", "fits"),
    [
        (["a", "b"], "classes", 2, True),
        (["a", "b"], "classes", 3, False),
        (["a", "b"], "imagenet", 1000, False),
        (["a", "b"], "digits", 2, False),
        (["n01443537", "n15075141"], "imagenet", 1000, True),
        (["n01443537", "n15075141"], "classes", 2, False),
        (["n01443537", "n15075141"], "cifar10", 10, False),
        (CIFAR, "cifar10", 10, True),
        (CIFAR, "classes", 10, True),
        (CIFAR, "imagenet", 1000, False),
        ([f"class{k}" for k in range(10)], "cifar10", 10, True),
        ([str(k) for k in range(10)], "digits", 10, True),
        ([str(k) for k in range(10)], "cifar10", 10, True),
    ],
)
def test_labels_only_where_they_fit(
    tmp_path: Path, folders: list[str], labels: str, classes: int, fits: bool
) -> None:
    fill(tmp_path, folders, 2)
    for images in load_images(tmp_path, network(labels, classes), 1):
        assert (images.labels is not None) == fits


@pytest.mark.parametrize("folders", [CIFAR, ["n01443537"]])
def test_digit_weights_contradict_other_images(
    tmp_path: Path, folders: list[str]
) -> None:
    fill(tmp_path, folders, 2)
    with pytest.raises(InputError, match="stub know digits and the images are"):
        load_images(tmp_path, network("digits", 10), 1)


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".JPEG", ".bmp", ".webp"])
def test_unreadable_images_are_skipped_and_counted(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path, ["a", "b"], 50, suffix)
    whole = load_images(tmp_path, network(), 30)
    assert capsys.readouterr().err.count("WARNING") == 0
    bad = tmp_path / "a" / f"007{suffix}"
    truncate(bad)
    sets = load_images(tmp_path, network(), 30)
    assert sum(len(images) for images in sets) == 99
    assert [images.skipped for images in sets] == [1, 1]
    assert [p for s in whole for p in paths(s) if p != bad] == [
        p for s in sets for p in paths(s)
    ]
    assert f"skipped 1 of 100 images, {bad.name} for one" in capsys.readouterr().err


def test_more_than_one_per_cent_unreadable_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"], 50)
    truncate(tmp_path / "a/003.png")
    (tmp_path / "b/004.png").write_text("no image")
    with pytest.raises(InputError, match=r"cannot read 2 of 100 images.*at most 1 %"):
        load_images(tmp_path, network(), 30)


def test_a_file_that_breaks_later_is_named(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"], 5)
    _, images = load_images(tmp_path, network(), 5)
    truncate(paths(images)[2])
    with pytest.raises(InputError, match=r"png can no longer be read"):
        list(images.batches(4))


def test_folders_without_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/notes.txt").write_text("")
    with pytest.raises(InputError, match="holds no images: expected one folder per"):
        load_images(tmp_path, network(), 1)
    with pytest.raises(InputError, match="nowhere does not exist"):
        load_images(tmp_path / "nowhere", network(), 1)


def test_too_few_images(tmp_path: Path) -> None:
    fill(tmp_path, ["a", "b"], 5)
    with pytest.raises(InputError, match=r"10 readable.*10 calibration and at least 1"):
        load_images(tmp_path, network(), 10)
    with pytest.raises(
        InputError, match=r"10 readable.*6 calibration and 5 evaluation"
    ):
        load_images(tmp_path, network(), 6, 5)
    with pytest.raises(InputError, match="calibration images: 0 asked for"):
        load_images(tmp_path, network(), 0)


@pytest.mark.parametrize("folders", [["."], ["train", "test"]])
def test_no_images_for_evaluation(tmp_path: Path, folders: list[str]) -> None:
    for folder in folders:
        fill(tmp_path / folder, ["a", "b"], 4)
    calibration, evaluation = load_images(tmp_path, network(), 8, 0)
    assert (len(calibration), len(evaluation)) == (8, 0)
    assert list(evaluation.batches(4)) == []
    assert evaluation.labels is not None
    assert evaluation.labels.dtype == torch.int64
    assert len(load_images(None, network(), 8, 0)[1]) == 0
    with pytest.raises(InputError, match="evaluation images: -1 asked for"):
        load_images(tmp_path, network(), 8, -1)


def test_embedded_images() -> None:
    calibration, evaluation = load_images(None, network("digits", 10), 512)
    assert (len(calibration), len(evaluation)) == (512, 1000)
    everything = [
        np.asarray(p).tobytes() for s in (calibration, evaluation) for p in s._items
    ]
    assert len(set(everything)) == 1512
    assert evaluation.labels is not None
    assert torch.bincount(evaluation.labels, minlength=10).min() > 70
    assert next(evaluation.batches(7)).shape == (7, 3, 8, 8)
    assert load_images(None, network("imagenet", 1000), 5)[1].labels is None


def test_too_many_embedded_images() -> None:
    with pytest.raises(InputError, match=r"513 calibration.*there are 512 embedded"):
        load_images(None, network(), 513)
    with pytest.raises(InputError, match=r"2000 evaluation.*there are 1000 embedded"):
        load_images(None, network(), 1, 2000)


def test_real_wnid_folders(real_data: Path) -> None:
    folder = ImageFolder(real_data / "imagenet-sample")
    assert folder.label_space == "imagenet"
    listed = (real_data / "imagenet-wnids.txt").read_text().split()
    assert imagenet_wnids() == listed
