"""Pictures of tested slices and of training samples: the right slice, boxes where they are."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import mmdet
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from mmpluld.cli.main import main
from mmpluld.datasets.slice_pictures import picture_address
from mmpluld.engine.browse import browse
from mmpluld.engine.pictures import LesionVisualizationHook, zoom_of
from mmpluld.errors import InputError
from mmpluld.registry import HOOKS, VISUALIZERS
from mmpluld.structures import AnnotationSet
from mmpluld.structures.candidates import Candidate, CandidateSet

SIZE = 128
GREEN = (0, 255, 0)
LIVER, LUNG, AIR = 60, -800, -1000


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A dataset of one series: slice 3 has liver on the left and lung on the right, its neighbours have air alone."""
    slices = np.full((7, SIZE, SIZE), AIR)
    slices[3, 10:118, 10:60] = LIVER
    slices[3, 10:118, 68:118] = LUNG
    (tmp_path / "slices").mkdir()
    for index, hu in enumerate(slices):
        cv2.imwrite(str(tmp_path / f"slices/{index:03d}.png"), (hu + 32768).astype(np.uint16))
    lesion = {"volume": "v", "recist": None, "type": None, "origin": "annotated", "score": None, "attributes": {}}
    content = {
        "schema": "mmpluld.annotations/1",
        "dataset": {"name": "test", "label_scope": "universal-complete"},
        "volumes": [
            {
                **{"id": "v", "patient": "p", "study": "1", "series": "1", "first_slice": 0, "num_slices": 7},
                **{"source": {"kind": "png16", "path": "slices"}, "shape_yx": [SIZE, SIZE]},
                "spacing_mm": [5.0, 1.0, 1.0],
            }
        ],
        "lesions": [
            {**lesion, "id": 0, "box": [20, 30, 3, 40, 50, 4], "key_slice": 3, "ignore": False},
            {**lesion, "id": 1, "box": [80, 60, 3, 100, 90, 4], "key_slice": 3, "ignore": True},
        ],
    }
    (tmp_path / "train.json").write_text(json.dumps(content))
    return tmp_path


def sample_of(root: Path, truth: list[float], found: list[list[float]], **metainfo: Any) -> DetDataSample:
    address = picture_address({"kind": "png16", "path": str(root / "slices")}, 0, 3, "v")
    sample = DetDataSample(metainfo={"img_path": address, **metainfo})
    sample.gt_instances = InstanceData(bboxes=torch.tensor([truth]), labels=torch.zeros(1, dtype=torch.long))
    scores = torch.linspace(0.9, 0.1, len(found)) if found else torch.zeros(0)
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor(found).reshape(-1, 4), labels=torch.zeros(len(found), dtype=torch.long), scores=scores
    )
    # As mmdet leaves an image without detections, and as a mask head of this package leaves one with some.
    sample.pred_instances.masks = torch.zeros(len(found), SIZE, SIZE, dtype=torch.bool)
    return sample


def drawn(root: Path, sample: DetDataSample, hook: type = LesionVisualizationHook) -> np.ndarray:
    """The picture that a test of one sample leaves, RGB."""
    visualizer = VISUALIZERS.get("DetLocalVisualizer").get_instance(
        f"{root.name}-{hook.__name__}", bbox_color=GREEN, line_width=2
    )
    visualizer.dataset_meta = {"classes": ("lesion",)}
    runner = SimpleNamespace(work_dir=str(root), timestamp="now", iter=0)
    hook(draw=True, score_thr=0.5, test_out_dir=str(root / "out")).after_test_iter(runner, 0, {}, [sample])
    return cv2.imread(str(root / "out/v_003.png"))[..., ::-1]


def is_green(picture: np.ndarray, x: float, y: float) -> bool:
    """Whether a line of a box runs within two pixels of a point."""
    near = picture[round(y) - 2 : round(y) + 3, round(x) - 2 : round(x) + 3].astype(int)
    return bool((near[..., 1] - near[..., 0] > 60).any())


def test_truth_on_the_left_and_predictions_on_the_right(root: Path) -> None:
    picture = drawn(root, sample_of(root, [20, 30, 40, 50], [[70, 80, 90, 100], [10, 100, 30, 120]]))
    zoom = zoom_of(SIZE, SIZE)
    assert picture.shape == (zoom * SIZE, 2 * zoom * SIZE, 3)
    side = zoom * SIZE
    assert is_green(picture, zoom * 40, zoom * 40)
    assert not is_green(picture, side + zoom * 40, zoom * 40)
    assert is_green(picture, side + zoom * 90, zoom * 90)
    assert not is_green(picture, zoom * 90, zoom * 90)
    # The second has too low a score.
    assert not is_green(picture, side + zoom * 30, zoom * 110)


def test_predictions_go_back_to_where_the_body_was_cut_out(root: Path) -> None:
    picture = drawn(root, sample_of(root, [20, 30, 40, 50], [[0, 10, 20, 30]], crop_offset=(50, 60)))
    zoom = zoom_of(SIZE, SIZE)
    assert is_green(picture, zoom * (SIZE + 70), zoom * 80)
    assert not is_green(picture, zoom * (SIZE + 20), zoom * 20)


@pytest.mark.parametrize(("box", "grey"), [([20, 30, 40, 50], (140, 0)), ([80, 60, 100, 90], (240, 94))])
def test_window_suits_what_the_boxes_hold(root: Path, box: list[float], grey: tuple[int, int]) -> None:
    picture = drawn(root, sample_of(root, box, []))
    zoom = zoom_of(SIZE, SIZE)
    values = tuple(int(picture[zoom * 110, zoom * x, 0]) for x in (15, 115))
    assert values == pytest.approx(grey, abs=1)


def test_mmdets_own_hook_finds_the_picture(root: Path) -> None:
    picture = drawn(root, sample_of(root, [20, 30, 40, 50], [[70, 80, 90, 100]]), HOOKS.get("DetVisualizationHook"))
    assert picture.shape == (SIZE, 2 * SIZE, 3)
    assert is_green(picture, 40, 40)
    assert is_green(picture, SIZE + 90, 90)


def test_sample_without_address_says_what_to_add(root: Path) -> None:
    with pytest.raises(InputError, match="'img_path'; add it to meta_keys"):
        LesionVisualizationHook(draw=True)._prepare(DetDataSample())


CONFIG = """
default_scope = "mmpluld"
visualizer = dict(type="DetLocalVisualizer", name="visualizer", bbox_color=(0, 255, 0), line_width=2)
train_dataloader = dict(
    dataset=dict(
        type="CTLesionDataset",
        ann_file="train.json",
        data_root={root!r},
        pipeline=[
            dict(type="LoadSliceStack", num_slices=7, slice_gap_mm=5.0, num_threads=0),
            dict(type="WindowHU"),
            dict(type="LoadAnnotations", with_bbox=True),
            dict(type="RandomFlip", prob=0.5),
            dict(type="PackDetInputs", meta_keys=("img_path", "flip")),
        ],
    )
)
"""


@pytest.fixture
def config(root: Path) -> Path:
    path = root / "mine.py"
    path.write_text(CONFIG.format(root=str(root)))
    return path


def test_browse_draws_the_middle_slice_with_its_augmented_boxes(
    config: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    paths = browse(config, root / "browsed", number=5)
    assert [path.name for path in paths] == [f"{place:03d}_v_003.png" for place in range(5)]
    zoom = zoom_of(SIZE, SIZE)
    flipped = set()
    for path in paths:
        picture = cv2.imread(str(path))[..., ::-1]
        # The middle slice alone has liver; it is white on the left, or flipped on the right.
        here = picture[zoom * 64, zoom * 15, 0] == 255
        assert picture[zoom * 64, zoom * (15 if here else SIZE - 15), 0] == 255
        x = 40 if here else SIZE - 40
        assert is_green(picture, zoom * x, zoom * 40)
        # What is to be ignored is yellow.
        x = zoom * (80 if here else SIZE - 80)
        column = picture[zoom * 60 : zoom * 90, x - 2 : x + 3].astype(int)
        assert (np.minimum(column[..., 0], column[..., 1]) - column[..., 2] > 60).any()
        flipped.add(here)
    assert flipped == {True, False}
    again = browse(config, root / "again", number=5)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


PATCHES = """
default_scope = "mmpluld"
visualizer = dict(type="DetLocalVisualizer", name="visualizer", bbox_color=(0, 255, 0), line_width=2)
train_dataloader = dict(
    dataset=dict(type={type!r}, ann_file={file!r}, data_root={root!r}, pipeline={steps!r}, {more})
)
"""


def browsed_patches(root: Path, kind: str, file: str, steps: list[dict[str, Any]], more: str = "") -> dict[str, Any]:
    """Pictures (H, W, RGB) of what a pipeline gives, by name."""
    path = root / "patches.py"
    path.write_text(PATCHES.format(type=kind, file=file, root=str(root), steps=steps, more=more))
    return {file.name: cv2.imread(str(file))[..., ::-1] for file in browse(path, root / "browsed", number=2)}


def test_browse_draws_every_patch_of_a_slice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    steps = [
        {"type": "LoadSliceStack", "num_slices": 3, "slice_gap_mm": 5.0, "num_threads": 0},
        {"type": "WindowHU"},
        {"type": "LoadAnnotations", "with_bbox": True},
        {"type": "CropLesionPatches", "size": 32},
        {"type": "PackLesionPatches"},
    ]
    content = json.loads((root / "train.json").read_text())
    content["lesions"][1]["ignore"] = False
    (root / "train.json").write_text(json.dumps(content))
    pictures = browsed_patches(root, "CTLesionDataset", "train.json", steps)
    assert list(pictures) == ["000_v_003.png", "001_v_003.png"]
    side = 32 * zoom_of(32, 32)
    for picture in pictures.values():
        assert picture.shape == (side, 2 * side, 3)
        # Of the first, 20 x 20, whose patch begins at (14, 24), and of the second, 20 x 30, at (74, 59).
        assert is_green(picture, side * 26 / 32, side / 2)
        assert is_green(picture, side + side * 26 / 32, side / 2)
        assert is_green(picture, side + side / 2, side * 31 / 32)
        assert not is_green(picture, side / 2, side * 31 / 32)
    content["lesions"][0]["ignore"] = content["lesions"][1]["ignore"] = True
    (root / "train.json").write_text(json.dumps(content))
    for picture in browsed_patches(
        root, "CTLesionDataset", "train.json", steps, "sampling=dict(policy='all_slices')"
    ).values():
        assert picture.shape == (side, side, 3)
        assert not picture.any()


def test_browse_draws_candidates_and_says_what_they_are(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    steps = [{"type": "LoadPatch", "size": (4, 32, 32), "voxel_mm": (5.0, 1.0, 1.0)}, {"type": "PackPatch"}]
    said: list[str] = []
    draw_texts = VISUALIZERS.get("DetLocalVisualizer").draw_texts
    monkeypatch.setattr(
        VISUALIZERS.get("DetLocalVisualizer"),
        "draw_texts",
        lambda self, texts, *args, **kwargs: (said.append(texts), draw_texts(self, texts, *args, **kwargs))[1],
    )
    volume = AnnotationSet.load(root / "train.json").volumes[0]
    candidates = [Candidate("v", (54, 54, 2, 74, 74, 4), 0.5, 0), Candidate("v", (10, 4, 2, 20, 34, 4), 0.5, None)]
    CandidateSet({"name": "test", "label_scope": "any"}, [volume], candidates, [{}], {}).save(root / "found.json")
    pictures = browsed_patches(root, "CandidateDataset", "found.json", steps)
    assert list(pictures) == ["000_v.png", "001_v.png"]
    side = 32 * zoom_of(32, 32)
    assert sorted(said) == ["false positive", "lesion"]
    for picture, text in zip(pictures.values(), said, strict=True):
        assert picture.shape == (side, side, 3)
        assert is_green(picture, side * (26 if text == "lesion" else 21) / 32, side / 2)
        assert is_green(picture, side / 2, side * (26 if text == "lesion" else 31) / 32)


def test_browse_draws_a_map_of_organs_beside_its_slice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    content = json.loads((root / "train.json").read_text())
    content["volumes"][0]["source"] = {"kind": "npy", "path": "volumes/v.npy"}
    (root / "train.json").write_text(json.dumps(content))
    organs = np.zeros((7, SIZE, SIZE), np.int16)
    organs[3, 10:118, 10:60], organs[3, 10:118, 68:118] = 17, 4
    for folder, array in (("volumes", np.full((7, SIZE, SIZE), LIVER, np.int16)), ("organs", organs)):
        (root / folder).mkdir()
        np.save(root / folder / "v.npy", array)
    steps = [
        {"type": "LoadSliceStack", "num_slices": 3, "slice_gap_mm": 5.0, "num_threads": 0},
        {"type": "WindowHU"},
        {"type": "LoadOrgans"},
        {"type": "PackDetInputs", "meta_keys": ("img_id",)},
    ]
    pictures = browsed_patches(root, "CTLesionDataset", "train.json", steps)
    assert list(pictures) == ["000_v_003.png", "001_v_003.png"]
    zoom = zoom_of(SIZE, SIZE)
    for picture in pictures.values():
        assert picture.shape == (zoom * SIZE, 2 * zoom * SIZE, 3)
        values = [int(picture[zoom * 64, zoom * (SIZE + x), 0]) for x in (64, 90, 30)]
        assert values == [0, 60, 255]


def test_browse_shows_what_nothing_changes_once(
    config: Path, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    config.write_text(config.read_text() + "val_dataloader = train_dataloader\n")
    out = root / "once"
    assert main(["browse", str(config), "--out", str(out), "--number", "5", "--part", "val"]) == 0
    assert capsys.readouterr().out == f"{out}: 1 pictures, of all samples for val\n"
    assert [path.name for path in out.iterdir()] == ["000_v_003.png"]


def test_browse_refuses_what_it_cannot_do(config: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "0")
    with pytest.raises(InputError, match="has no val_dataloader"):
        browse(config, root / "browsed", part="val")
    with pytest.raises(InputError, match="from 1"):
        browse(config, root / "browsed", number=0)
    with pytest.raises(InputError, match="is a file"):
        browse(config, config)
    assert not (root / "browsed").exists()


def test_mmdets_browse_dataset_runs(config: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = Path(mmdet.__file__).parent / ".mim/tools/analysis_tools/browse_dataset.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(config), "--output-dir", str(root / "theirs"), "--not-show"])
    runpy.run_path(str(script), run_name="__main__")
    assert [path.name for path in (root / "theirs").iterdir()] == ["v_003.png"]
