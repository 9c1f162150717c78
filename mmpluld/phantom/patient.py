"""One random patient: body frame, habitus, contrast phase and the curves of tubular organs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from mmpluld.phantom.canvas import Array, BodyFrame, Capsules, SmoothField, ellipsoid_bounds
from mmpluld.phantom.spec import PHASES

__all__ = ["Patient", "Bowel", "make_patient", "with_study"]

Place = tuple[float, float, float]
Size = tuple[float, float]

_PHASE_HU: dict[str, dict[str, float]] = {
    "native": {
        "artery": 42,
        "vein": 40,
        "portal": 42,
        "liver": 58,
        "spleen": 48,
        "cortex": 34,
        "medulla": 30,
        "wall": 40,
        "heart": 42,
    },
    "arterial": {
        "artery": 310,
        "vein": 95,
        "portal": 110,
        "liver": 70,
        "spleen": 135,
        "cortex": 190,
        "medulla": 75,
        "wall": 85,
        "heart": 230,
    },
    "portal": {
        "artery": 165,
        "vein": 150,
        "portal": 172,
        "liver": 112,
        "spleen": 122,
        "cortex": 185,
        "medulla": 160,
        "wall": 80,
        "heart": 150,
    },
}
"""Nominal HU of the enhancing tissues by contrast phase."""

_NEW_WARP = 0.4  # share of the deformation's variance that is new at each study: about 2 mm


@dataclass(frozen=True)
class Bowel:
    """A piece of bowel: its shape with the wall, what fills it, and the depth y in front of which it holds gas."""

    capsules: Capsules
    value: float
    wall_mm: float
    wall_value: float
    air_y: float | None


@dataclass(frozen=True)
class Benign:
    """An ellipsoid that looks like a lesion: where it lies, in mm, and its HU; `core_hu` fills its middle unless 0."""

    where: str
    centre: Place
    radii: Place
    hu: float
    core_hu: float
    turn: float


@dataclass(frozen=True)
class Patient:
    """Everything random about one patient at one study; painting it is deterministic."""

    frame: BodyFrame
    lumps: SmoothField
    grain: SmoothField
    sex: str
    age: int
    fat_mm: tuple[float, float, float]
    """Subcutaneous fat: anterior, lateral, posterior."""
    phase: str
    hu: dict[str, float]
    shift: dict[str, tuple[float, float, float]]
    """Offset (x, y, z) in mm of each movable organ."""
    grow: dict[str, float]
    """Size factor of each movable organ."""
    tissue_vessels: dict[str, Capsules]
    bowel: tuple[Bowel, ...]
    benign: tuple[Benign, ...]
    """Look-alikes of lesions."""

    @cached_property
    def benign_bounds(self) -> tuple[Array, Array]:
        """Lowest and highest corners of the look-alikes, each (N, 3): most lie outside a block of slices."""
        bounds = [ellipsoid_bounds(item.centre, item.radii, item.turn) for item in self.benign]
        low, high = np.asarray(bounds, np.float32).swapaxes(0, 1)
        return low, high

    def moved(self, organ: str, x: float, y: float, z: float) -> tuple[float, float, float]:
        """The standard position of an organ, shifted as in this patient."""
        dx, dy, dz = self.shift[organ]
        return x + dx, y + dy, z + dz

    def sized(self, organ: str, *radii: float) -> tuple[float, float, float]:
        """The standard radii of an organ times this patient's factor."""
        factor = self.grow[organ]
        return radii[0] * factor, radii[1] * factor, radii[2] * factor


_ORGANS = (
    "liver",
    "spleen",
    "kidney_l",
    "kidney_r",
    "heart",
    "stomach",
    "gallbladder",
    "bladder",
    "pancreas",
    "aorta",
)


def make_patient(rng: np.random.Generator, phases: Sequence[str] = ()) -> Patient:
    """Draw a patient with the contents of a first study; `phases` as in `with_study`."""
    sex = "F" if rng.random() < 0.47 else "M"
    base = rng.normal(0.93 if sex == "F" else 1.0, 0.035)
    scale = tuple(float(np.clip(base * rng.normal(1.0, 0.03), 0.84, 1.1)) for _ in range(3))
    frame = BodyFrame((scale[0], scale[1], scale[2]), SmoothField(rng, 60.0), SmoothField(rng, 60.0), 3.0)
    obesity = float(np.clip(rng.lognormal(np.log(13.0), 0.45), 4.0, 34.0))
    fat = (obesity * rng.uniform(0.8, 1.3), obesity * rng.uniform(0.7, 1.0), obesity * rng.uniform(0.6, 1.1))
    shift: dict[str, tuple[float, float, float]] = {}
    for name in _ORGANS:
        dx, dy, dz = rng.normal(0.0, 3.0, 3).tolist()
        shift[name] = (dx, dy, dz)
    grow = {name: float(np.clip(rng.normal(1.0, 0.06), 0.88, 1.14)) for name in _ORGANS}
    vessels = {
        "lung_r": _tree(rng, (-30.0, 8.0, 120.0), (-75.0, 5.0, 150.0), 5.5, 4, (-1, 0)),
        "lung_l": _tree(rng, (30.0, 8.0, 118.0), (75.0, 5.0, 150.0), 5.5, 4, (0, 1)),
        "hepatic": _tree(rng, (-20.0, 12.0, 232.0), (-75.0, 0.0, 262.0), 5.5, 3, (-1, 1)),
        "mesenteric": _tree(rng, (0.0, -18.0, 352.0), (5.0, -24.0, 425.0), 3.2, 3, (-1, 1)),
        "portal": _tree(rng, (-14.0, 2.0, 300.0), (-70.0, 0.0, 285.0), 6.5, 3, (-1, 1)),
    }
    patient = Patient(
        frame, SmoothField(rng, 17.0), SmoothField(rng, 6.0), sex, int(np.clip(rng.normal(56, 15), 12, 88)),
        (float(fat[0]), float(fat[1]), float(fat[2])), "portal", {}, shift, grow, vessels, (), _benign(rng),
    )  # fmt: skip
    return with_study(patient, rng, phases)


def with_study(patient: Patient, rng: np.random.Generator, phases: Sequence[str] = ()) -> Patient:
    """The same patient on another day.

    New are contrast phase, bowel and bladder filling, how far the patient is turned and has breathed in, and a part of
    the body's deformation; organs are moved a little. The phase is one of `phases`; without any, it is portal in two of
    three, as in DeepLesion.
    """
    phase = str(rng.choice(list(phases))) if phases else str(rng.choice(list(PHASES), p=[0.15, 0.2, 0.65]))
    hu = {name: float(value * rng.normal(1.0, 0.07)) for name, value in _PHASE_HU[phase].items()}
    shift = {
        name: (x + float(rng.normal(0, 0.7)), y + float(rng.normal(0, 0.7)), z + float(rng.normal(0, 1.5)))
        for name, (x, y, z) in patient.shift.items()
    }
    grow = dict(patient.grow) | {"bladder": float(rng.uniform(0.75, 1.25)), "stomach": float(rng.uniform(0.8, 1.15))}
    frame = replace(
        patient.frame,
        warp_x=patient.frame.warp_x.renewed(rng, _NEW_WARP),
        warp_y=patient.frame.warp_y.renewed(rng, _NEW_WARP),
        roll=float(np.radians(np.clip(rng.normal(0, 2.5), -6, 6))),
        breath_mm=float(np.clip(rng.normal(0, 6), -14, 14)),
    )
    return Patient(
        frame, patient.lumps, patient.grain, patient.sex, patient.age, patient.fat_mm, phase, hu, shift, grow,
        patient.tissue_vessels, _bowel(rng, hu["wall"]), patient.benign,
    )  # fmt: skip


def _length(vector: npt.NDArray[np.float64]) -> float:
    """Length of a single vector: as ``np.linalg.norm``, whose checks would be most of the work here."""
    return math.sqrt(vector.dot(vector))


def _tree(
    rng: np.random.Generator,
    root: tuple[float, float, float],
    target: tuple[float, float, float],
    radius: float,
    depth: int,
    sides: tuple[int, int],
) -> Capsules:
    """A branching tree of tapered tubes from `root`, its first branches fanning out around `target`."""
    start, aim = np.asarray(root), np.asarray(target)
    reach = float(np.linalg.norm(aim - start))
    pieces: list[tuple[Array, Array, float, float]] = []
    queue = []
    for _ in range(10):
        direction = (aim - start) / reach + rng.normal(0, 0.75, 3)
        if sides[0] == 0:
            direction[0] = abs(direction[0])
        elif sides[1] == 0:
            direction[0] = -abs(direction[0])
        queue.append(
            (
                start,
                direction / _length(direction),
                radius * rng.uniform(0.6, 1.0),
                reach * rng.uniform(0.4, 0.75),
                0,
            )
        )
    while queue:
        begin, direction, r, length, level = queue.pop()
        bend = direction + rng.normal(0, 0.18, 3)
        middle = begin + direction * length * 0.5
        end = middle + bend / _length(bend) * length * 0.5
        pieces += [(begin, middle, r, r * 0.9), (middle, end, r * 0.9, r * 0.72)]
        if level < depth:
            for _ in range(2 if level else 3):
                turn = direction + rng.normal(0, 0.5, 3)
                child = r * rng.uniform(0.5, 0.75)
                if child > 0.6:
                    queue.append((end, turn / _length(turn), child, length * rng.uniform(0.6, 0.8), level + 1))
    starts, ends, wide, narrow = zip(*pieces, strict=True)
    return Capsules(*(np.asarray(part, np.float32) for part in (starts, ends, wide, narrow)))


def _walk(
    rng: np.random.Generator, start: Array, steps: int, step_mm: float, low: Array, high: Array, lazy: float
) -> Array:
    """A smooth random walk inside a box; (steps + 1, 3)."""
    points = [start]
    direction = rng.normal(0, 1, 3)
    for _ in range(steps):
        direction = direction / _length(direction) + rng.normal(0, lazy, 3)
        step = step_mm * direction / _length(direction)
        point = points[-1] + step
        beyond = (point < low) | (point > high)
        direction[beyond] *= -1
        points.append(np.clip(point, low, high))
    return np.asarray(points, np.float32)


def _bowel(rng: np.random.Generator, wall: float) -> tuple[Bowel, ...]:
    """Small bowel loops and the colon with this day's contents."""
    tubes = []
    oral = rng.random() < 0.6
    low, high = np.array([-80, -58, 345], np.float32), np.array([82, 2, 530], np.float32)
    for _ in range(21):
        points = _walk(rng, rng.uniform(low, high).astype(np.float32), 9, 15.0, low, high, 0.55)
        radii = np.full(len(points), rng.uniform(9.5, 13.5), np.float32)
        filled = oral and rng.random() < 0.5
        value = rng.uniform(180, 420) if filled else rng.uniform(15, 45)
        level = float(points[:, 1].min() + rng.uniform(-4, 4)) if rng.random() < 0.25 else None
        tubes.append(Bowel(Capsules.chain(points, radii), float(value), 2.5, wall + float(rng.normal(10, 6)), level))
    frame = {
        "ascending": [(-92, 20, 470), (-98, 12, 430), (-98, 8, 390), (-92, -5, 360)],
        "transverse": [(-92, -5, 360), (-60, -52, 352), (-10, -66, 362), (45, -62, 350), (90, -20, 318), (100, 8, 300)],
        "descending": [(100, 8, 300), (106, 22, 350), (104, 25, 400), (98, 20, 445), (80, -5, 480)],
        "sigmoid": [
            (80, -5, 480),
            (40, -30, 505),
            (0, -20, 512),
            (22, 10, 520),
            (0, 34, 530),
            (0, 44, 560),
            (0, 42, 620),
        ],
    }
    for name, nodes in frame.items():
        points = _resample(np.asarray(nodes, np.float32) + rng.normal(0, 3, (len(nodes), 3)).astype(np.float32), 13.0)
        wide = {"ascending": 23.0, "transverse": 17.0, "descending": 13.0, "sigmoid": 13.0}[name]
        radii = wide * (1 + 0.18 * np.sin(np.arange(len(points)) * 1.9 + rng.uniform(0, 6)))
        gas = rng.random() < 0.65
        level = float(points[:, 1].mean() + rng.uniform(-0.4, 1.4) * wide) if gas else None
        tubes.append(Bowel(Capsules.chain(points, radii), float(rng.uniform(20, 70)), 3.0, wall, level))
    return tuple(tubes)


def _resample(nodes: Array, step_mm: float) -> Array:
    """Points about `step_mm` apart on a Catmull-Rom curve through `nodes` (N, 3)."""
    padded = np.concatenate([nodes[:1] * 2 - nodes[1:2], nodes, nodes[-1:] * 2 - nodes[-2:-1]])
    pieces = []
    for p0, p1, p2, p3 in zip(padded[:-3], padded[1:-2], padded[2:-1], padded[3:], strict=True):
        count = max(1, int(np.ceil(np.linalg.norm(p2 - p1) / step_mm)))
        t = (np.arange(count) / count)[:, None]
        pieces.append(
            0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
        )
    pieces.append(nodes[-1:])
    return np.concatenate(pieces).astype(np.float32)


def _benign(rng: np.random.Generator) -> tuple[Benign, ...]:
    """Structures that nobody would measure, small ones and ones as large as lesions.

    Small: granulomas, normal nodes, injection sites, phleboliths. Large: nodes with a fatty hilum, calcified
    granulomas in lung and liver, lipomas, fibrous bands.
    """
    found: list[Benign] = []

    def add(
        where: str, count: int, low: Place, high: Place, size: tuple[float, float], hu: float, core: float = 0.0
    ) -> None:
        for _ in range(count):
            x, y, z = rng.uniform(low, high).tolist()
            radius = float(rng.uniform(*size))
            flat = rng.uniform(0.6, 1.0, 3) if radius > 3 else np.ones(3)
            rx, ry, rz = (radius * flat / flat.max()).tolist()
            found.append(Benign(where, (x, y, z), (rx, ry, rz), hu, core, float(rng.uniform(0, np.pi))))

    for side in (-1.0, 1.0):
        left, right = sorted((side * 45, side * 95))
        add("lung", 2, (left, -45, 60), (right, 50, 200), (1.2, 2.0), 350.0)
        add("lung", 2, (left, -45, 60), (right, 50, 200), (4.0, 9.0), 420.0)
        left, right = sorted((side * 25, side * 60))
        add("phlebolith", 3, (left, 10, 540), (right, 50, 610), (1.8, 1.8), 420.0)
    add("node", 14, (-25, -25, 40), (25, 30, 150), (1.5, 2.8), 55.0)
    add("node", 24, (-70, -45, 300), (70, 20, 520), (1.2, 2.8), 50.0)
    add("node", 5, (-40, -30, 60), (40, 30, 190), (6.0, 11.0), 60.0, core=-85.0)
    add("node", 8, (-70, -45, 300), (70, 25, 520), (6.0, 11.0), 60.0, core=-85.0)
    add("node", 4, (-70, -50, 470), (70, 30, 600), (6.0, 11.0), 60.0, core=-85.0)
    add("liver", 2, (-115, -50, 225), (-30, 60, 340), (4.0, 10.0), 330.0)
    return tuple(found)
