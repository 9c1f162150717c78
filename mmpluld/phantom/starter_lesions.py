"""Lesions of starter scans: of every size and look, wherever tissue is, with their complete truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mmpluld.phantom.canvas import Array, Window
from mmpluld.phantom.organs import Organ
from mmpluld.phantom.starter_scene import Scene
from mmpluld.typing import BoolArray

__all__ = ["PaintedLesion", "paint_lesions"]

_TORSO_HOSTS = {
    Organ.LUNG: 0.3, Organ.LIVER: 0.14, Organ.FAT: 0.2, Organ.MUSCLE: 0.15, Organ.KIDNEY: 0.07, Organ.BONE: 0.07,
    Organ.SPLEEN: 0.04, Organ.PANCREAS: 0.03, Organ.BOWEL: 0.03, Organ.GENITAL: 0.02,
}  # fmt: skip
_LIMB_HOSTS = {Organ.MUSCLE: 0.66, Organ.FAT: 0.2, Organ.BONE: 0.09, Organ.LUNG: 0.05}
_TYPES = {
    Organ.LUNG: "lung", Organ.LIVER: "liver", Organ.KIDNEY: "kidney", Organ.BONE: "bone", Organ.MUSCLE: "soft tissue",
}  # fmt: skip
_SOFT = (Organ.FAT, Organ.MUSCLE, Organ.VESSEL)
_INSIDE = {
    Organ.LUNG: (Organ.LUNG, Organ.VESSEL, Organ.AIRWAY),
    Organ.LIVER: (Organ.LIVER, Organ.VESSEL),
    Organ.SPLEEN: (Organ.SPLEEN,),
    Organ.KIDNEY: (Organ.KIDNEY, Organ.FAT),
    Organ.BONE: (Organ.BONE,),
    Organ.FAT: (Organ.FAT, Organ.VESSEL),
    Organ.MUSCLE: _SOFT,
}
"""Where a lesion stays; others, and those that invade, go anywhere but into the air and through bone."""
_CLEAR_HU = 9.0  # lesions with less contrast are not held for or against a detector
_LEAST_MM = 5.0


@dataclass(frozen=True)
class PaintedLesion:
    """A lesion of finished slices.

    Attributes:
        type: Lesion type in words.
        boxes: (x1, y1, x2, y2), pixel edges, by slice.
        key_slice: That with the largest cross-section.
        clear: Whether it is large and contrasted enough to be seen.
    """

    type: str
    boxes: dict[int, tuple[int, int, int, int]]
    key_slice: int
    clear: bool


@dataclass(frozen=True)
class _Shape:
    """An ellipsoid with a disturbed outline, in mm of the scene; (z, y, x)."""

    centre: Array
    radii: Array
    axes: Array
    bumps: Array  # (K, 4): direction and height
    power: int
    lumpy_mm: float

    @property
    def reach(self) -> float:
        return float(self.radii.max()) * 1.35 + 3 + 2.5 * self.lumpy_mm

    def distance(self, z: Array, y: Array, x: Array, lumps: Array) -> Array:
        """Signed distance (approximate, mm)."""
        offsets = (z - self.centre[0], y - self.centre[1], x - self.centre[2])
        u, v, w = (
            (row[0] * offsets[0] + row[1] * offsets[1] + row[2] * offsets[2]) / radius
            for row, radius in zip(self.axes, self.radii, strict=True)
        )
        rho = np.sqrt(u * u + v * v + w * w) + np.float32(1e-4)
        outline = np.ones_like(rho)
        for a, b, c, height in self.bumps:
            outline += height * np.clip((a * u + b * v + c * w) / rho, 0, 1) ** self.power
        size = float(np.cbrt(np.prod(self.radii)))
        return np.asarray((rho / outline - 1) * size + self.lumpy_mm * lumps, np.float32)


def paint_lesions(rng: np.random.Generator, scene: Scene) -> list[PaintedLesion]:
    """Paint lesions into a scene, clear of each other; the truth is that of its finished slices."""
    wanted = int(rng.choice([0, 1, 1, 2, 2, 3])) if scene.limb else int(rng.poisson(4))
    hosts = _LIMB_HOSTS if scene.limb else _TORSO_HOSTS
    places = {organ: found for organ in hosts if len(found := np.flatnonzero(scene.organs == organ)) > 300}
    if not places:
        return []
    weights = np.array([hosts[organ] for organ in places]) * rng.gamma(1.0, 1.0, len(places))
    before = scene.organs.copy()
    shapes: list[_Shape] = []
    painted = []
    for _ in range(wanted * 6):
        if len(shapes) >= wanted:
            break
        host = list(places)[int(rng.choice(len(places), p=weights / weights.sum()))]
        voxels = np.stack(np.unravel_index(rng.choice(places[host], 2), scene.hu.shape), axis=1)
        # Of two, the one nearer to the middle: lesions at the edge of the picture are rarer in patients.
        off = np.linalg.norm(voxels[:, 1:] / scene.hu.shape[1:] - 0.5, axis=1)
        shape = _shape(rng, scene, host, voxels[int(off.argmin())])
        if any(np.linalg.norm(shape.centre - other.centre) < shape.reach + other.reach for other in shapes):
            continue
        lesion = _paint(rng, scene, before, host, shape)
        if lesion is not None:
            shapes.append(shape)
            painted.append(lesion)
    return painted


def _shape(rng: np.random.Generator, scene: Scene, host: Organ, voxel: npt.NDArray[np.intp]) -> _Shape:
    median, spread, most = (16.0, 0.75, 100.0) if host == Organ.LUNG else (20.0, 0.55, 90.0)
    if (scene.limb or host == Organ.MUSCLE) and host != Organ.BONE:
        median, spread, most = 45.0, 0.55, 150.0
    radius = float(np.clip(rng.lognormal(np.log(median), spread), 5.0, most)) / 2
    flat = 0.45 if rng.random() < 0.2 else 0.7
    radii = radius * np.array([1.0, rng.uniform(flat, 1.0), rng.uniform(flat, 1.0)])
    spiculated = host == Organ.LUNG and rng.random() < 0.35
    count, height, power = (12, 0.3, 8) if spiculated else (5, 0.14, 2)
    directions = rng.normal(0, 1, (count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    bumps = np.concatenate([directions, rng.normal(0, height, (count, 1))], axis=1)
    return _Shape(
        ((voxel + rng.uniform(0, 1, 3)) * scene.spacing_mm).astype(np.float32),
        radii.astype(np.float32),
        np.linalg.qr(rng.normal(0, 1, (3, 3)))[0].astype(np.float32),
        np.clip(bumps, -0.5, 0.5).astype(np.float32),
        power,
        float(rng.uniform(0, 0.13) * radius),
    )


def _paint(
    rng: np.random.Generator, scene: Scene, organs: npt.NDArray[np.uint8], host: Organ, shape: _Shape
) -> PaintedLesion | None:
    """Paint one lesion; None if almost nothing of it lies where it may."""
    window = _window(scene, shape)
    coordinates = [
        ((np.arange(part.start, part.stop) + 0.5) * step).astype(np.float32)
        for part, step in zip(window, scene.spacing_mm, strict=True)
    ]
    z, y, x = np.meshgrid(*coordinates, indexing="ij", sparse=True)
    distance = shape.distance(z, y, x, scene.lumps[window])
    within = organs[window]
    invades = host not in _INSIDE or rng.random() < {Organ.LUNG: 0.35, Organ.BONE: 0.4, Organ.FAT: 0.3}.get(host, 0.1)
    if invades:
        allowed = ~np.isin(within, (Organ.OUTSIDE, Organ.HEART) + (() if host == Organ.BONE else (Organ.BONE,)))
    else:
        allowed = np.isin(within, _INSIDE[host])
    inside = (distance < 0) & allowed
    if inside.sum() < 8:
        return None
    block = scene.hu[window]
    tissue = float(np.median(block[inside & (within == host)])) if (inside & (within == host)).any() else 0.0
    soft_mm = scene.pixel_mm * rng.uniform(1, 2.2)
    share = np.clip(0.5 - distance / np.float32(soft_mm), 0, 1) * allowed
    block += share * (_values(rng, host, tissue, shape, distance, scene.lumps[window]) - block)
    return _measure(scene, window, share, _TYPES.get(host, "abdomen"))


def _window(scene: Scene, shape: _Shape) -> Window:
    """What holds the lesion, in whole slices."""
    low = np.floor((shape.centre - shape.reach) / scene.spacing_mm).astype(int)
    high = np.ceil((shape.centre + shape.reach) / scene.spacing_mm).astype(int)
    low, high = np.maximum(low, 0), np.minimum(high, scene.hu.shape)
    n = scene.layers
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return slice(z.start // n * n, -(-z.stop // n) * n), y, x


def _base_hu(rng: np.random.Generator, host: Organ, tissue: float) -> float:
    """Mean HU of a lesion in a tissue."""
    drawn = rng.random()
    if host == Organ.LUNG:
        return float(rng.uniform(-650, -200) if drawn < 0.15 else rng.uniform(-30, 90))
    if host == Organ.FAT:
        return float(rng.uniform(5, 110))
    if host == Organ.BONE:
        return float(rng.uniform(15, 100) if drawn < 0.6 else rng.uniform(650, 1200))
    if host == Organ.KIDNEY:
        return float(rng.uniform(-5, 25) if drawn < 0.5 else tissue - rng.uniform(20, 110))
    if host == Organ.MUSCLE:
        if drawn < 0.06:
            return float(rng.uniform(-115, -50))
        return tissue + float(-rng.uniform(12, 60) if drawn < 0.68 else rng.uniform(15, 80))
    return tissue + float(-rng.uniform(18, 80) if drawn < 0.78 else rng.uniform(18, 70))


def _values(
    rng: np.random.Generator, host: Organ, tissue: float, shape: _Shape, distance: Array, lumps: Array
) -> Array:
    """HU inside: mean, rim, core, texture, calcifications."""
    size = float(np.cbrt(np.prod(shape.radii)))
    value = np.full(distance.shape, _base_hu(rng, host, tissue), np.float32)
    if rng.random() < 0.3:
        value += rng.uniform(10, 60) * np.clip((distance + rng.uniform(2, 6)) / 1.5, 0, 1)
    if size > 7 and rng.random() < 0.4:
        deep = rng.uniform(0.3, 0.7) * size
        core = -900.0 - value if host == Organ.LUNG and rng.random() < 0.3 else -rng.uniform(10, 45)
        value += core * np.clip((-distance - deep + 0.1 * size * lumps) / 2.0, 0, 1)
    from scipy import ndimage

    grain = ndimage.gaussian_filter(rng.standard_normal(distance.shape, dtype=np.float32), rng.uniform(0.8, 3.0))
    grain /= max(float(grain.std()), 1e-6)
    value += rng.uniform(0, 14) * grain + rng.uniform(0, 10) * lumps
    if rng.random() < 0.1:
        value += rng.uniform(150, 700) * np.clip((grain - rng.uniform(1.8, 2.6)) * 3, 0, 1)
    return value


def _measure(scene: Scene, window: Window, share: Array, kind: str) -> PaintedLesion | None:
    """Boxes of the finished slices."""
    n = scene.layers
    depth, height, width = share.shape
    mask = share.reshape(depth // n, n, height, width).mean(axis=1) > 0.5
    areas = mask.sum(axis=(1, 2))
    boxes = {}
    for k in np.flatnonzero(areas >= 3):
        rows, columns = (np.flatnonzero(mask[k].any(axis=axis)) for axis in (1, 0))
        x0, y0 = window[2].start, window[1].start
        boxes[window[0].start // n + int(k)] = (
            x0 + int(columns[0]), y0 + int(rows[0]), x0 + int(columns[-1]) + 1, y0 + int(rows[-1]) + 1,
        )  # fmt: skip
    if not boxes:
        return None
    key = window[0].start // n + int(areas.argmax())
    x1, y1, x2, y2 = boxes[key]
    clear = abs(_contrast(scene, window, mask)) >= _CLEAR_HU and max(x2 - x1, y2 - y1) * scene.pixel_mm >= _LEAST_MM
    return PaintedLesion(kind, boxes, key, clear)


def _contrast(scene: Scene, window: Window, mask: BoolArray) -> float:
    """Mean HU of the lesion less the median of a shell of about three pixels around it."""
    from scipy import ndimage

    n = scene.layers
    block = scene.hu[window]
    block = block.reshape(len(mask), n, *block.shape[1:]).mean(axis=1)
    shell = ndimage.binary_dilation(mask, np.ones((1, 3, 3), bool), iterations=3) & ~mask
    return float(block[mask].mean() - np.median(block[shell])) if shell.any() else 0.0
