"""Pictures of what a network is trained on: samples as the pipeline of a config gives them, with their boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmdet.models.utils import mask2ndarray
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

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

__all__ = ["browse"]

_PARTS = ("train", "val", "test")


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

    Each shows the middle slice of a stack, its lesions with their masks, and dashed what is to be ignored; of patches
    the middle slice of each, with its box and what that is; a map of organs stands beside its slice. Samples are drawn
    at random; when the training data have fewer than asked for, they come again with other augmentations.

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
        raise InputError(f"{config}: has no {part}_dataloader; --part is one of {', '.join(_PARTS)}")
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
            index = int(order[place % len(order)])
            item = dataset[index]
            known = item["data_samples"] if "data_samples" in item else dataset.get_data_info(index)
            paths.append(Path(out) / f"{place:03d}_{_name(known)}.png")
            views = _views(item, getattr(dataset, "test_mode", False))
            drawn = np.concatenate([_draw(visualizer, *view) for view in views], axis=1)
            picture = cv2.imencode(".png", drawn[..., ::-1])[1]
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


def _name(known: Any) -> str:
    """What files call a sample, of which this much is known."""
    if "img_path" in known:
        return Path(str(known.get("img_path"))).stem
    return str(known.get("img_id", known.get("volume_id", "sample"))).replace("/", "_")


def _views(item: Mapping[str, Any], test_mode: bool) -> list[tuple[Any, DetDataSample]]:
    """What stands side by side in the picture of a sample: stacks (D, H, W), each with its truth."""
    stack = item["inputs"].numpy()
    if "data_samples" not in item:  # of PackPatch
        says = ("false positive", "lesion")[int(item["labels"])] if "labels" in item else "candidate"
        return [(stack[0], _labelled(item["boxes"][None, [0, 1, 3, 4]], [says]))]
    sample = item["data_samples"]
    if stack.ndim == 4:  # of PackLesionPatches
        if not len(stack):  # all of its lesions are to be ignored
            return [(np.zeros(stack.shape[1:], stack.dtype), _labelled(torch.zeros(0, 4), []))]
        boxes, numbers = sample.gt_instances.bboxes, sample.gt_instances.lesion_ids.tolist()
        return [
            (patch, _labelled(box[None], [f"lesion {number}"]))
            for patch, box, number in zip(stack, boxes, numbers, strict=True)
        ]
    if test_mode:
        _to_pixels_shown(sample)
    views = [(stack, sample)]
    if "gt_sem_seg" in sample:  # of LoadOrgans; mmdet would look for the organs among the classes of the boxes
        views.append((sample.gt_sem_seg.sem_seg.numpy(), DetDataSample()))
        del sample.gt_sem_seg
    return views


def _labelled(boxes: torch.Tensor, texts: list[str]) -> DetDataSample:
    """Truth of boxes (N, 4), each with a text of its own."""
    sample = DetDataSample()
    labels = torch.zeros(len(boxes), dtype=torch.long)
    sample.gt_instances = InstanceData(bboxes=boxes, labels=labels, label_names=texts)
    return sample


def _to_pixels_shown(sample: DetDataSample) -> None:
    """Bring truth that a test pipeline left in the pixels of the file to those of the picture."""
    x, y = sample.get("crop_offset", (0, 0))
    scale = torch.tensor(sample.get("scale_factor", (1.0, 1.0)), dtype=torch.float32).repeat(2)
    for instances in (sample.gt_instances, sample.get("ignored_instances")):
        if instances is not None and "bboxes" in instances:
            instances.bboxes = (_plain(instances.bboxes) - torch.tensor([x, y, x, y])) * scale


def _draw(visualizer: Any, stack: Any, sample: DetDataSample) -> Any:
    """The picture (H, W, 3), RGB, of a sample with its stack (D, H, W)."""
    middle = stack[len(stack) // 2].astype(np.float32)
    zoom = zoom_of(*middle.shape)
    shown = sample.clone()
    truth = shown.get("gt_instances", InstanceData())
    if "bboxes" in truth:
        truth.bboxes = zoom * _plain(truth.bboxes)
    if "masks" in truth:
        truth.masks = np.kron(mask2ndarray(truth.masks), np.ones((1, zoom, zoom), np.uint8)).astype(bool)
    grey = np.kron(stretch(middle), np.ones((zoom, zoom), np.uint8))
    visualizer.add_datasample("sample", np.stack([grey] * 3, axis=-1), shown, draw_pred=False)
    ignored = zoom * _plain(sample.ignored_instances.get("bboxes", ())) if "ignored_instances" in sample else ()
    if len(ignored):
        visualizer.draw_bboxes(ignored, edge_colors="y", line_styles="--", line_widths=2)
    return visualizer.get_image()


def _plain(boxes: Any) -> Any:
    """Boxes (N, 4) as a tensor."""
    return getattr(boxes, "tensor", boxes)
