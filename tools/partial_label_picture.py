"""Draw docs/images/partial_labels.png: ``python tools/partial_label_picture.py OUT.png``. What a detector is told."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData

from mmpluld.engine.config import load_config
from mmpluld.phantom import PhantomLesion, PhantomSeries, make_phantom
from mmpluld.registry import MODELS, TASK_UTILS
from mmpluld.reproduce.twin_data import SETTINGS
from mmpluld.typing import BoolArray, FloatArray
from mmpluld.utils import register_all_modules
from mmpluld.visualization.figures import figure_at

CONFIG = "pluld-a3d_densenet121-fpn_7s_phantom"
SEED, SIZE = 14, 256
WINDOW = (-600.0, 400.0)
MARKED, UNMARKED, BACKGROUND = "#39d353", "#ffb000", "#0072b2"


def busiest_slice(series: PhantomSeries) -> int:
    """The slice with marked and unmarked lesions that shows most lesions."""

    def seen(index: int) -> list[PhantomLesion]:
        return [lesion for lesion in series.lesions if index in lesion.slices]

    keys = {lesion.key_slice for lesion in series.lesions if lesion.marked}
    return max(sorted(keys), key=lambda index: len(seen(index)))


class Proposals:
    """What the proposal network of a config is told of a slice, at the cells of its one map."""

    def __init__(self, config: str) -> None:
        register_all_modules()
        model = load_config(config).model
        self.anchors = TASK_UTILS.build(model.rpn_head.anchor_generator)
        self.assigner = TASK_UTILS.build(model.train_cfg.rpn.assigner)
        self.loss = MODELS.build(model.rpn_head.loss_cls)

    def told(self, lesions: FloatArray, ignored: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Per cell (rows, columns): 1 where an anchor is a lesion, 0 background, -1 ignored; the loss' weights."""
        side = SIZE // self.anchors.strides[0][0]
        (grid,) = self.anchors.grid_priors([(side, side)], device="cpu")
        truth = InstanceData(
            bboxes=torch.tensor(lesions, dtype=torch.float), labels=torch.zeros(len(lesions), dtype=torch.long)
        )
        spared = InstanceData(bboxes=torch.tensor(ignored, dtype=torch.float))
        found = self.assigner.assign(InstanceData(priors=grid), truth, spared).gt_inds.reshape(side, side, -1)
        label = torch.where((found > 0).any(2), 1, torch.where((found < 0).any(2), -1, 0))
        target = (label.flatten() != 1).long()  # to the loss the background is the class after the last
        torch.manual_seed(0)
        each = self.loss(torch.zeros(side * side, 1), target, reduction_override="none").reshape(side, side)
        return label.numpy().astype(float), (each / np.log(2)).numpy().astype(float)


def boxes(lesions: list[PhantomLesion], index: int) -> FloatArray:
    """(n, 4), pixel edges."""
    return np.array([lesion.slices[index].box for lesion in lesions], np.float64).reshape(-1, 4)


def within(cells: int, lesions: FloatArray) -> BoolArray:
    """Cells whose centre lies in a box."""
    centre = (np.arange(cells) + 0.5) * SIZE / cells
    inside = np.zeros((cells, cells), bool)
    for x1, y1, x2, y2 in lesions:
        inside |= ((centre >= y1) & (centre < y2))[:, None] & ((centre >= x1) & (centre < x2))
    return inside


def tint(label: FloatArray, weight: FloatArray, wrong: BoolArray) -> FloatArray:
    """Colour and opacity of each cell, (rows, columns, 4)."""
    from matplotlib.colors import to_rgb

    shade = np.zeros((*label.shape, 4))
    for colour, chosen in ((BACKGROUND, label == 0), (UNMARKED, (label == 0) & wrong), (MARKED, label == 1)):
        shade[chosen, :3] = to_rgb(colour)
    shade[..., 3] = np.where(label < 0, 0.0, 0.6 * weight)
    return shade


def draw(out: Path) -> None:
    from matplotlib.patches import Rectangle

    settings: dict[str, Any] = {**SETTINGS, "lesions_per_series": 40}
    torso = {"size": SIZE, "regions": ("torso",), "intervals_mm": (5.0,), "max_slices": 140}
    series = make_phantom(SEED, **(settings | torso)).series[0]
    index = busiest_slice(series)
    shown = [lesion for lesion in series.lesions if index in lesion.slices]
    marked = boxes([lesion for lesion in shown if lesion.marked], index)
    unmarked = boxes([lesion for lesion in shown if not lesion.marked], index)
    head, none = Proposals(CONFIG), np.zeros((0, 4))
    label, weight = head.told(marked, none)
    wrong = within(len(label), unmarked)
    spared, _ = head.told(marked, unmarked)
    panels = (
        ("what is there", None),
        ("what the detector is told", tint(label, np.ones_like(label), wrong)),
        ("... with the partial-label loss", tint(label, weight, wrong)),
        ("... if the unmarked were known", tint(spared, np.ones_like(label), wrong)),
    )
    with figure_at(out, (11.2, 2.6), font_size=9, dpi=110) as figure:
        for axis, (title, shade) in zip(figure.subplots(1, 4), panels, strict=True):
            axis.imshow(
                series.volume.array[index], cmap="gray", vmin=WINDOW[0], vmax=WINDOW[1], interpolation="bilinear"
            )
            if shade is not None:
                axis.imshow(shade, extent=(-0.5, SIZE - 0.5, SIZE - 0.5, -0.5), interpolation="nearest")
            for found, colour, line in ((marked, MARKED, "-"), (unmarked, UNMARKED, (0, (3, 2)))):
                for x1, y1, x2, y2 in found - 0.5:  # imshow puts pixel centres at whole numbers
                    place = ((x1, y1), x2 - x1, y2 - y1)
                    axis.add_patch(Rectangle(*place, fill=False, linewidth=1.2, edgecolor=colour, linestyle=line))
            axis.set_title(title)
            axis.set(xlim=(15, 240), ylim=(215, 35))
            axis.set_axis_off()


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw what partial labels tell a detector.")
    parser.add_argument("out", type=Path, help="PNG file to write")
    draw(parser.parse_args().out)


if __name__ == "__main__":
    main()
