"""What starter scans show before they have lesions: torsos and limbs, whole or in part, in widely varied looks.

A detector that is to work on real scans must not learn how the phantoms look. So everything that differs between
scanners, patients and scan ranges is drawn from ranges wider than those of patients: HU of tissues, contrast, sizes,
slice distances, fields of view that cut through the body.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from mmpluld.phantom.acquisition import table_hu
from mmpluld.phantom.anatomy import paint_torso
from mmpluld.phantom.canvas import Array, BodyFrame, Canvas, Capsules, SmoothField
from mmpluld.phantom.organs import Organ
from mmpluld.phantom.patient import Patient, make_patient

__all__ = ["Scene", "limb_scene", "torso_scene"]

_INTERVALS_MM = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 3.0, 3.27, 4.0, 5.0, 5.0)
_CHUNK_VOXELS = 200_000
_TORSO_MM = (12.0, 618.0)


@dataclass
class Scene:
    """A block of thin layers, without noise.

    Attributes:
        hu, organs: Picture and organ of every voxel, (L, H, W).
        lumps: Smooth field of about 30 mm structure with unit variance, same shape.
        pixel_mm, interval_mm: Voxel size of the slices.
        layers: Thin layers that make a slice.
        limb: Whether it shows a limb, else the torso.
    """

    hu: Array
    organs: npt.NDArray[np.uint8]
    lumps: Array
    pixel_mm: float
    interval_mm: float
    layers: int
    limb: bool

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Of the thin layers, (z, y, x)."""
        return self.interval_mm / self.layers, self.pixel_mm, self.pixel_mm


@dataclass(frozen=True)
class _Grid:
    """Where the layers and pixels of a scene lie."""

    pixel_mm: float
    interval_mm: float
    layers: int
    count: int
    size: int

    @classmethod
    def draw(cls, rng: np.random.Generator, fov_mm: float, most: int) -> _Grid:
        interval = float(rng.choice(_INTERVALS_MM))
        count = int(np.clip(rng.uniform(60, 150) / interval, 12, 44))
        size = int(np.clip(fov_mm / rng.uniform(1.2, 2.0), 88, most))
        return cls(fov_mm / size, interval, 2 if interval >= 2.5 else 1, count, size)

    def heights(self, first_mm: float) -> Array:
        """Of all thin layers."""
        places = (np.arange(self.count * self.layers) + 0.5) / self.layers
        return (first_mm + places * self.interval_mm).astype(np.float32)

    def axis(self, middle_mm: float) -> Array:
        """Pixel centres."""
        return (middle_mm + (np.arange(self.size) - (self.size - 1) / 2) * self.pixel_mm).astype(np.float32)


def torso_scene(rng: np.random.Generator) -> Scene:
    """A part of a torso: two of five times only a part of its cross-section, so that there is no air around it."""
    patient = _patient(rng)
    half = (158 + patient.fat_mm[1]) * patient.frame.scale[2]
    whole = rng.random() < 0.6
    fov = 2 * half * rng.uniform(1.02, 1.2) if whole else rng.uniform(130, 280)
    grid = _Grid.draw(rng, float(fov), 224)
    reach = (8.0, 8.0) if whole else (0.62 * half, 65.0)
    x_mm, y_mm = (grid.axis(float(rng.uniform(-r, r))) for r in reach)
    scale_z = patient.frame.scale[0]
    span = grid.count * grid.interval_mm
    heights = grid.heights(float(rng.uniform(_TORSO_MM[0] * scale_z, _TORSO_MM[1] * scale_z - span)))
    hu = np.empty((len(heights), grid.size, grid.size), np.float32)
    organs = np.empty(hu.shape, np.uint8)
    lumps = np.empty_like(hu)
    step = max(1, _CHUNK_VOXELS // grid.size**2)
    for first in range(0, len(heights), step):
        part = slice(first, first + step)
        canvas = _canvas(patient, heights[part], y_mm, x_mm, grid.pixel_mm)
        paint_torso(canvas, patient)
        assert canvas.organs is not None
        hu[part], organs[part], lumps[part] = canvas.hu, canvas.organs, canvas.lumps
    _vary_tissues(rng, hu, organs)
    if rng.random() < 0.2:
        _add_effusion(rng, hu, organs, lumps)
    if rng.random() < 0.6:
        np.maximum(hu, table_hu(patient, y_mm, x_mm), out=hu)
    return Scene(hu, organs, lumps, grid.pixel_mm, grid.interval_mm, grid.layers, limb=False)


def _patient(rng: np.random.Generator) -> Patient:
    """A patient of unusual size, contrast and posture."""
    patient = make_patient(rng, ("native", "arterial", "portal"))
    size = float(rng.uniform(0.8, 1.15))
    z, y, x = patient.frame.scale
    frame = replace(
        patient.frame,
        scale=(z * size, y * size, x * size),
        warp_mm=float(rng.uniform(2.0, 6.0)),
        roll=float(np.radians(rng.normal(0, 6))),
    )
    hu = {name: float(value * rng.normal(1, 0.15) + rng.normal(0, 6)) for name, value in patient.hu.items()}
    return replace(patient, frame=frame, hu=hu)


def _canvas(patient: Patient, heights: Array, y_mm: Array, x_mm: Array, pixel_mm: float) -> Canvas:
    frame = patient.frame
    axes = frame.axes(heights, y_mm, x_mm)
    canvas = Canvas(
        *axes, *frame.coordinates(heights, y_mm, x_mm), patient.lumps.on_axes(*axes), patient.grain.on_axes(*axes),
        pixel_mm, 4 * frame.warp_mm, frame.roll,
    )  # fmt: skip
    canvas.organs = np.zeros(canvas.hu.shape, np.uint8)
    return canvas


def _vary_tissues(rng: np.random.Generator, hu: Array, organs: npt.NDArray[np.uint8]) -> None:
    """Move the HU of the tissues that all phantoms have alike."""
    for organ, spread in ((Organ.FAT, 10.0), (Organ.MUSCLE, 8.0), (Organ.BOWEL, 12.0), (Organ.PANCREAS, 15.0)):
        hu[organs == organ] += np.float32(rng.normal(0, spread))
    hu[organs == Organ.LUNG] += np.float32(rng.uniform(-60, 160))
    bone = organs == Organ.BONE
    hu[bone] = 100 + (hu[bone] - 100) * np.float32(rng.uniform(0.6, 1.8))


def _add_effusion(rng: np.random.Generator, hu: Array, organs: npt.NDArray[np.uint8], lumps: Array) -> None:
    """Fluid, or lung without air, behind a level of one lung: no lesion, though it is where lung should be."""
    half = organs.shape[2] // 2
    side = np.arange(organs.shape[2]) < half if rng.random() < 0.5 else np.arange(organs.shape[2]) >= half
    rows = np.flatnonzero(((organs == Organ.LUNG) & side).any(axis=(0, 2)))
    if not len(rows):
        return
    level = rows[0] + rng.uniform(0.6, 0.95) * (rows[-1] - rows[0])
    behind = np.arange(organs.shape[1])[:, None] > level + 3 * lumps
    filled = (organs == Organ.LUNG) & side & behind
    hu[filled] = np.float32(rng.uniform(0, 70)) + 4 * lumps[filled]
    organs[filled] = Organ.OUTSIDE  # lesions neither begin nor grow there


def limb_scene(rng: np.random.Generator) -> Scene:
    """A part of a thigh, leg, arm, shoulder or buttock: muscles with fat between them, bones, vessels, often no air."""
    grid = _Grid.draw(rng, float(rng.uniform(120, 240)), 144)
    span = grid.count * grid.interval_mm
    heights, axis = grid.heights(0.0), grid.axis(0.0)
    frame = BodyFrame(
        (2.5, 1.0, 1.0),  # limbs change slowly along their length
        SmoothField(rng, float(rng.uniform(35, 70))), SmoothField(rng, float(rng.uniform(35, 70))),
        float(rng.uniform(4, 12)), float(rng.uniform(0, np.pi)),
    )  # fmt: skip
    z, y, x = frame.coordinates(heights, axis, axis)
    lumps = SmoothField(rng, 17.0).on_axes(heights, axis, axis)
    grain = SmoothField(rng, 6.0).on_axes(heights, axis, axis)
    canvas = Canvas(
        heights, axis, axis, heights[:, None, None] + 0 * z, y, x, lumps, grain, grid.pixel_mm, 4 * frame.warp_mm,
        frame.roll,
    )  # fmt: skip
    canvas.organs = np.zeros(canvas.hu.shape, np.uint8)
    face = _paint_limb_envelope(rng, canvas)
    _paint_muscles(rng, canvas, face)
    with canvas.within(canvas.full, face):
        for _ in range(int(rng.choice([0, 0, 1, 2, 3]))):
            _paint_round_muscle(rng, canvas, span)
    _paint_limb_vessels(rng, canvas, span)
    for _ in range(int(rng.choice([0, 1, 1, 1, 2, 2]))):
        _paint_limb_bone(rng, canvas, span)
    for _ in range(int(rng.choice([0, 0, 0, 1, 2]))):
        _paint_flat_bone(rng, canvas, span)
    if rng.random() < 0.2:
        _paint_lung_beside(rng, canvas)
    return Scene(canvas.hu, canvas.organs, lumps, grid.pixel_mm, grid.interval_mm, grid.layers, limb=True)


def _paint_limb_envelope(rng: np.random.Generator, canvas: Canvas) -> Array:
    """Skin and fat; the signed distance (mm) to the muscles' outer face."""
    wide, high = rng.uniform(50, 110, 2) if rng.random() < 0.5 else rng.uniform(110, 320, 2)
    shift = rng.uniform(-0.35, 0.35, 2) * (wide, high)
    distance = np.sqrt(((canvas.x - shift[0]) / wide) ** 2 + ((canvas.y - shift[1]) / high) ** 2)
    distance = ((distance - 1) * min(wide, high)).astype(np.float32)
    canvas.part = Organ.FAT
    canvas.paint(canvas.full, distance, 20.0)
    canvas.paint(canvas.full, distance + 2, float(rng.normal(-103, 8)) + 6 * canvas.grain)
    return np.asarray(distance + np.float32(rng.uniform(3, 35)) + canvas.lumps, np.float32)


def _paint_muscles(rng: np.random.Generator, canvas: Canvas, face: Array) -> None:
    """Muscles, cells around random axes along the limb, with fat between and in them."""
    count = int(rng.integers(4, 20))
    reach = float(canvas.x_mm[-1]) * 1.25
    axes = rng.uniform(-reach, reach, (count, 2)).astype(np.float32)
    lean = rng.normal(0, 0.12, (count, 2)).astype(np.float32)
    first = np.full(canvas.hu.shape, 1e6, np.float32)
    second, cell = first.copy(), np.zeros(canvas.hu.shape, np.int16)
    for number in range(count):
        dx = canvas.x - axes[number, 0] - lean[number, 0] * canvas.z
        dy = canvas.y - axes[number, 1] - lean[number, 1] * canvas.z
        distance = np.sqrt(dx * dx + dy * dy) + np.float32(rng.normal(0, 6))
        nearer = distance < first
        second = np.where(nearer, first, np.minimum(second, distance))
        first = np.where(nearer, distance, first)
        cell[nearer] = number
    base, spread = rng.uniform(40, 72), rng.uniform(0, 6)
    hu = (base + rng.normal(0, spread, count)).astype(np.float32)[cell] + rng.uniform(2, 7) * canvas.grain
    gap = (second - first) / 2 - np.float32(rng.uniform(0.2, 3.0)) - 0.8 * canvas.lumps
    canvas.part = Organ.MUSCLE
    canvas.paint(canvas.full, np.maximum(face, -gap), hu)
    if rng.random() < 0.6:  # fat within
        streaks = (np.float32(rng.uniform(1.3, 2.2)) - canvas.grain) * 3
        canvas.paint(canvas.full, np.maximum(streaks, face), float(rng.uniform(-70, 10)))


def _paint_round_muscle(rng: np.random.Generator, canvas: Canvas, span: float) -> None:
    """A muscle with a round cross-section in a sheath of fat: a mass on one slice, but long."""
    reach = 0.8 * float(canvas.x_mm[-1])
    centre = (float(rng.uniform(-reach, reach)), float(rng.uniform(-reach, reach)), float(rng.uniform(0, span)))
    radii = (float(rng.uniform(9, 38)), float(rng.uniform(9, 30)), float(rng.uniform(90, 250)))
    turn, sheath = float(rng.uniform(0, np.pi)), float(rng.uniform(0.8, 3.5))
    canvas.part = Organ.FAT
    canvas.ellipsoid(centre, (radii[0] + sheath, radii[1] + sheath, radii[2]), -90.0, turn=turn, lumpy_mm=1.0)
    canvas.part = Organ.MUSCLE
    canvas.ellipsoid(centre, radii, float(rng.uniform(40, 75)), turn=turn, lumpy_mm=1.0)


def _paint_limb_vessels(rng: np.random.Generator, canvas: Canvas, span: float) -> None:
    """Bundles of an artery and one or two veins, and single ones; some walls are calcified."""
    artery, vein = rng.uniform(35, 330), rng.uniform(35, 180)
    reach = float(canvas.x_mm[-1])
    for _ in range(int(rng.integers(1, 5))):
        start, end = rng.uniform(-reach, reach, (2, 2))
        end = start + 0.35 * (end - start)
        radius = float(rng.uniform(1.2, 6))
        for value in (artery, vein, vein)[: int(rng.integers(1, 4))]:
            aside = rng.normal(0, 1.6 * radius + 1, 2)
            points = [(*(start + aside), -8.0), (*((start + end) / 2 + aside), span / 2), (*(end + aside), span + 8.0)]
            canvas.part = Organ.FAT
            canvas.tubes(Capsules.chain(points, radius + 1.5), -95.0)
            canvas.part = Organ.VESSEL
            if value == artery and rng.random() < 0.2:
                canvas.tubes(Capsules.chain(points, radius + 0.8), float(rng.uniform(200, 600)))
            canvas.tubes(Capsules.chain(points, radius), float(value))


def _paint_limb_bone(rng: np.random.Generator, canvas: Canvas, span: float) -> None:
    """A long bone, four of ten times with a joint in the scan range."""
    reach = 0.6 * float(canvas.x_mm[-1])
    x, y = rng.uniform(-reach, reach, 2)
    tilt = rng.normal(0, 0.1, 2)
    shaft = float(rng.uniform(6, 16))
    dx = canvas.x - x - tilt[0] * canvas.z
    dy = canvas.y - y - tilt[1] * canvas.z
    across = np.sqrt(dx * dx + dy * dy * np.float32(rng.uniform(0.7, 1.4)))
    radius: Array = np.full_like(canvas.z, shaft)
    cartilage = None
    if rng.random() < 0.4:
        joint, width = float(rng.uniform(0.1, 0.9) * span), float(rng.uniform(18, 38))
        away = np.abs(canvas.z - joint) / np.float32(rng.uniform(12, 30))
        radius = shaft + (width - shaft) * np.exp(-(away**2))
        cartilage = np.abs(canvas.z - joint + 0.12 * across * rng.normal()) - np.float32(rng.uniform(1.5, 3.5))
    bone = (across - radius + 0.8 * canvas.lumps).astype(np.float32)
    canvas.part = Organ.BONE
    canvas.paint(canvas.full, bone, float(rng.uniform(600, 1500)))
    cortex = np.clip(radius * 0.35, 1.2, rng.uniform(1.5, 6))
    canvas.paint(canvas.full, bone + cortex, float(rng.uniform(-70, 280)) + 25 * canvas.grain)
    if cartilage is not None:
        canvas.paint(canvas.full, np.maximum(bone - 2, cartilage).astype(np.float32), float(rng.uniform(10, 90)))


def _paint_flat_bone(rng: np.random.Generator, canvas: Canvas, span: float) -> None:
    """A plate, such as a part of the shoulder blade, the pelvis or a rib."""
    reach = float(canvas.x_mm[-1])
    centre = (float(rng.uniform(-reach, reach)), float(rng.uniform(-reach, reach)), float(rng.uniform(0, span)))
    radii = (float(rng.uniform(18, 50)), float(rng.uniform(3, 9)), float(rng.uniform(15, 70)))
    canvas.part = Organ.BONE
    turn = float(rng.uniform(0, np.pi))
    canvas.ellipsoid(centre, radii, float(rng.uniform(500, 1200)), turn=turn)
    inner = (radii[0] - 2, 0.6 * radii[1], radii[2] - 2)
    canvas.ellipsoid(centre, inner, float(rng.uniform(30, 300)), turn=turn)


def _paint_lung_beside(rng: np.random.Generator, canvas: Canvas) -> None:
    """A part of a lung behind a chest wall, as beside a shoulder."""
    reach, turn = float(canvas.x_mm[-1]), float(rng.uniform(0, 2 * np.pi))
    depth = canvas.x * np.float32(np.cos(turn)) + canvas.y * np.float32(np.sin(turn)) + 4 * canvas.lumps
    wall = np.asarray(np.float32(rng.uniform(0.2, 0.8) * reach) - depth, np.float32)
    canvas.part = Organ.LUNG
    canvas.paint(canvas.full, wall, float(rng.uniform(-880, -700)) + 25 * canvas.grain)
    vessels = np.maximum((2.0 - canvas.grain) * 2, wall + 3)
    canvas.part = Organ.VESSEL
    canvas.paint(canvas.full, vessels, float(rng.uniform(-300, 60)))
