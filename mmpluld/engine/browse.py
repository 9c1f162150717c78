"""Pictures of what a network is trained on: samples as the pipeline of a config gives them, with their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.models.utils import mask2ndarray
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmpluld.atomic import atomic_path
from mmpluld.engine.hooks import seed_everything
from mmpluld.engine.pictures import zoom_of
from mmpluld.engine.run import prepare_config
from mmpluld.errors import InputError
from mmpluld.outputs import check_output_folder, folder_lock
from mmpluld.progress import track
from mmpluld.registry import DATASETS, VISUALIZERS
from mmpluld.typing import StrPath
from mmpluld.visualization.pictures import stretch

__all__ = ["PARTS", "browse"]

PARTS = ("train", "val", "test")


def browse(
    config: StrPath,
    out: StrPath,
    number: int = 20,
    part: str = "train",
    seed: int = 0,
    cfg_options: Sequence[str] | None = None,
    twin: bool = False,
) -> list[Path]:
    """Draw samples of a config's dataset as its pipeline gives them; return the pictures' paths.

    Each shows the middle slice of a stack, its lesions with their masks, and dashed what is to be ignored. Samples are
    drawn at random; when the training data have fewer than asked for, they come again with other augmentations.

    Args:
        config: Path, or name of a config of the zoo.
        out: Folder of the pictures, made if needed; pictures of the same name are replaced.
        number: How many, at least 1; of validation and test data at most all, since nothing changes them.
        part: train | val | test.
        seed: Of the choice and of the augmentations.
        cfg_options: Changes to the config as "key.sub=value" strings.
        twin: Take the config's miniature.

    Raises:
        InputError: Bad config, missing data, or the config has no such part.
    """
    if number < 1:
        raise InputError(f"--number {number}: allowed are whole numbers from 1")
    cfg = prepare_config(config, None, cfg_options, "none", 0, twin)
    loader = cfg.get(f"{part}_dataloader")
    if not loader:
        raise InputError(f"{config}: has no {part}_dataloader; --part is one of {', '.join(PARTS)}")
    check_output_folder(out)
    init_default_scope(cfg.get("default_scope", "mmpluld"))
    dataset = DATASETS.build(loader.dataset)
    visualizer = _visualizer(cfg, dataset)
    seed_everything(seed)
    order = np.random.default_rng(seed).permutation(len(dataset))
    if part != "train":
        number = min(number, len(dataset))
    paths = []
    with folder_lock(out):
        for place in track(range(number), "samples"):
            item = dataset[int(order[place % len(order)])]
            sample = item["data_samples"]
            name = Path(str(sample.get("img_path", sample.get("img_id", "sample")))).stem
            paths.append(Path(out) / f"{place:03d}_{name}.png")
            if getattr(dataset, "test_mode", False):
                _to_pixels_shown(sample)
            picture = cv2.imencode(".png", _draw(visualizer, item["inputs"].numpy(), sample)[..., ::-1])[1]
            with atomic_path(paths[-1]) as temporary:
                temporary.write_bytes(picture.tobytes())
    return paths


def _visualizer(cfg: Config, dataset: Any) -> Any:
    """The config's visualizer, without the places where it keeps pictures in training."""
    settings = {**cfg.visualizer, "vis_backends": None}
    # Not built by the registry, which hands out the one of a former training again.
    visualizer = VISUALIZERS.get(settings.pop("type"))(**settings)
    visualizer.dataset_meta = dataset.metainfo
    return visualizer


def _to_pixels_shown(sample: DetDataSample) -> None:
    """Bring truth that a test pipeline left in the pixels of the file to those of the picture."""
    x, y = sample.get("crop_offset", (0, 0))
    scale = torch.tensor(sample.get("scale_factor", (1.0, 1.0)), dtype=torch.float32).repeat(2)
    for instances in (sample.gt_instances, sample.get("ignored_instances")):
        if instances is not None:
            instances.bboxes = (_plain(instances.bboxes) - torch.tensor([x, y, x, y])) * scale


def _draw(visualizer: Any, stack: Any, sample: DetDataSample) -> Any:
    """The picture (H, W, 3), RGB, of a sample with its stack (D, H, W)."""
    middle = stack[len(stack) // 2].astype(np.float32)
    zoom = zoom_of(*middle.shape)
    shown = sample.clone()
    truth = shown.gt_instances
    truth.bboxes = zoom * _plain(truth.bboxes)
    if "masks" in truth:
        truth.masks = np.kron(mask2ndarray(truth.masks), np.ones((1, zoom, zoom), np.uint8)).astype(bool)
    grey = np.kron(stretch(middle), np.ones((zoom, zoom), np.uint8))
    visualizer.add_datasample("sample", np.stack([grey] * 3, axis=-1), shown, draw_pred=False)
    ignored = zoom * _plain(sample.ignored_instances.bboxes) if "ignored_instances" in sample else ()
    if len(ignored):
        visualizer.draw_bboxes(ignored, edge_colors="y", line_styles="--", line_widths=2)
    return visualizer.get_image()


def _plain(boxes: Any) -> Any:
    """Boxes (N, 4) as a tensor."""
    return getattr(boxes, "tensor", boxes)
