"""Lesions of the eight DeepLesion types: where they grow, how large, how bright, how uneven."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mmpluld.phantom.anatomy import body_distance, cavity_distance, diaphragm_height, liver_distance, lung_distance
from mmpluld.phantom.bones import rib_point, spine_centre
from mmpluld.phantom.canvas import Array
from mmpluld.phantom.patient import Patient
from mmpluld.phantom.spec import PhantomSpec
from mmpluld.structures import LESION_TYPES

__all__ = ["Lesion", "at_study", "draw_lesions"]

_MIX = {
    "bone": 0.07, "abdomen": 0.2, "mediastinum": 0.15, "liver": 0.16, "lung": 0.2, "kidney": 0.07, "soft tissue": 0.04,
    "pelvis": 0.09,
}  # fmt: skip
_LONG_AXIS_MM = {1: 19.0, 2: 21.0, 3: 19.0, 4: 20.0, 5: 17.0, 6: 20.0, 7: 20.0, 8: 22.0}  # medians
MAX_LONG_AXIS_MM = 45.0
_SPREAD = 0.8  # shape of the gamma law by which a patient's organs are preferred
_FAT_HU, _MUSCLE_HU, _MARROW_HU, _LUNG_HU = -100.0, 56.0, 210.0, -865.0
Place = tuple[float, float, float]


@dataclass(frozen=True)
class Lesion:
    """One lesion in standard-torso coordinates.

    Attributes:
        number: Identity within the patient, the same in all studies.
        type: 1 to 8 as in DeepLesion.
        centre: (x, y, z) in mm.
        radii: Half axes in mm before the outline is disturbed.
        axes: (3, 3) rotation, rows are the ellipsoid's axes.
        bumps: (K, 4): directions and heights of the outline's low-order disturbances.
        hu: Mean HU at the first study.
        rim_hu: HU that are added in the outer 2.5 mm.
        core_hu: HU that are added in the inner half.
        texture_hu: Amplitude of the uneven texture.
        growth: Natural log of the size factor from one study to the next.
        appears, vanishes: First study with the lesion, first study without it.
        organ: Key of `Patient.hu` whose changes from study to study the lesion shares; None for a lesion of its own HU.
    """

    number: int
    type: int
    centre: Place
    radii: Place
    axes: Array
    bumps: Array
    hu: float
    rim_hu: float
    core_hu: float
    texture_hu: float
    growth: float
    appears: int
    vanishes: int
    organ: str | None = None

    @property
    def reach(self) -> float:
        """Radius in mm of a sphere that holds the lesion."""
        return max(self.radii) * 1.3 + 1.0

    def distance(self, z: Array, y: Array, x: Array) -> Array:
        """Signed distance (approximate, mm) from points in standard-torso coordinates."""
        dx, dy, dz = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        u, v, w = (
            (row[0] * dx + row[1] * dy + row[2] * dz) / radius
            for row, radius in zip(self.axes, self.radii, strict=True)
        )
        rho = np.sqrt(u * u + v * v + w * w) + np.float32(1e-4)
        outline = np.ones_like(rho)
        for a, b, c, height in self.bumps:
            cosine = (a * u + b * v + c * w) / rho
            outline += height * cosine * np.abs(cosine)
        return np.asarray((rho / outline - 1) * np.cbrt(np.prod(self.radii)), np.float32)

    def values(self, distance: Array, grain: Array) -> Array:
        """HU inside the lesion from its signed distance and the tissue's grain."""
        size = float(np.cbrt(np.prod(self.radii)))
        value = self.hu + self.texture_hu * grain
        value += self.rim_hu * np.clip((distance + 2.5) / 1.5, 0, 1)
        value += self.core_hu * np.clip((-distance - 0.45 * size) / 2.0, 0, 1)
        return np.asarray(value, np.float32)


def at_study(lesion: Lesion, study: int, first: Patient, today: Patient) -> Lesion | None:
    """The lesion as it is at `study` (0 is the first), or None if it is not there.

    Args:
        lesion: As it was drawn.
        study: Number of the study.
        first, today: The patient at the first study and at this one.
    """
    if not lesion.appears <= study < lesion.vanishes:
        return None
    factor = float(np.exp(lesion.growth * (study - lesion.appears)))
    limit = MAX_LONG_AXIS_MM / 2 / max(lesion.radii)
    radii = tuple(radius * min(factor, max(limit, 1.0)) for radius in lesion.radii)
    change = today.hu[lesion.organ] - first.hu[lesion.organ] if lesion.organ else 0.0
    return replace(lesion, radii=(radii[0], radii[1], radii[2]), hu=lesion.hu + change)


def draw_lesions(
    rng: np.random.Generator, patient: Patient, z_range: tuple[float, float], spec: PhantomSpec
) -> tuple[Lesion, ...]:
    """Draw lesions whose centres lie in `z_range` (standard mm) and which keep clear of each other.

    At least one is drawn unless ``spec.lesions_per_series`` is 0. Long axes are drawn from ``spec.min_long_mm`` to
    45 mm; a small organ may limit them further. A patient's disease prefers some organs, so that several lesions of an
    organ lie close together.
    """
    wanted = max(1, int(rng.poisson(spec.lesions_per_series))) if spec.lesions_per_series > 0 else 0
    lesions: list[Lesion] = []
    mix = spec.lesion_mix or _MIX
    kinds, weights = list(LESION_TYPES), np.array([mix.get(name, 0.0) for name in LESION_TYPES.values()])
    weights *= rng.gamma(_SPREAD, 1 / _SPREAD, len(kinds))
    for _ in range(wanted * 30):
        if len(lesions) >= wanted:
            break
        kind = int(rng.choice(kinds, p=weights / weights.sum()))
        long_mm = float(np.clip(rng.lognormal(np.log(_LONG_AXIS_MM[kind]), 0.42), spec.min_long_mm, MAX_LONG_AXIS_MM))
        # Several draws per type, so that types whose organ is hit less often are not rarer for it.
        draws = (_PLACERS[kind](rng, patient, long_mm / 2) for _ in range(15))
        found = next((placed for placed in draws if placed and z_range[0] < placed[0][2] < z_range[1]), None)
        if found is None:
            continue
        place, hu, long_mm, tissue = found
        hu += np.copysign(spec.contrast_hu, hu - tissue)
        organ = next((name for name in ("liver", "spleen") if patient.hu[name] == tissue), None)
        lesion = replace(_lesion(rng, len(lesions) + 1, kind, place, float(hu), long_mm), organ=organ)
        gaps = (np.linalg.norm(np.subtract(place, other.centre)) - other.reach - lesion.reach for other in lesions)
        if all(gap > 2.0 for gap in gaps):
            lesions.append(lesion)
    return tuple(lesions)


def _lesion(rng: np.random.Generator, number: int, kind: int, centre: Place, hu: float, long_mm: float) -> Lesion:
    """Give a placed lesion its shape, inner look and fate."""
    radius = long_mm / 2
    flat = 0.75 if kind in (4, 5, 6) else 0.6
    radii = (radius, radius * float(rng.uniform(flat, 0.95)), radius * float(rng.uniform(flat, 1.0)))
    # The longest axis lies near the plane of the slices: that is where lesions get measured.
    axes = np.linalg.qr(rng.normal(0, 1, (3, 3)) * np.array([[1.0], [1.0], [0.35]]))[0].T
    count = 7 if kind == 5 and rng.random() < 0.4 else 4
    directions = rng.normal(0, 1, (count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    bumps = np.concatenate([directions, rng.normal(0, 0.085, (count, 1))], axis=1)
    necrotic = kind in (2, 3, 4, 7, 8) and radius > 9 and rng.random() < 0.4
    return Lesion(
        number=number,
        type=kind,
        centre=centre,
        radii=radii,
        axes=axes.astype(np.float32),
        bumps=bumps.astype(np.float32),
        hu=hu,
        rim_hu=float(rng.uniform(12, 30)) if necrotic else 0.0,
        core_hu=float(rng.uniform(-35, -15)) if necrotic else 0.0,
        texture_hu=40.0 if kind == 1 else 6.0,
        growth=float(rng.normal(0.08, 0.3)),
        appears=int(rng.choice([0, 1], p=[0.85, 0.15])),
        vanishes=int(rng.choice([1, 2, 99], p=[0.05, 0.1, 0.85])),
    )


def _enhanced(rng: np.random.Generator, patient: Patient) -> float:
    """HU of solid soft-tissue lesions in this phase."""
    return float(rng.uniform(35, 50) if patient.phase == "native" else rng.uniform(55, 100))


def _pick(rng: np.random.Generator, low: Place, high: Place) -> Place:
    x, y, z = rng.uniform(low, high)
    return float(x), float(y), float(z)


def _near(rng: np.random.Generator, stations: list[Place], spread: float) -> Place:
    x, y, z = np.asarray(stations[int(rng.integers(len(stations)))]) + rng.normal(0, spread, 3)
    return float(x), float(y), float(z)


def _block(place: Place) -> tuple[Array, Array, Array]:
    """A point as z, y, x arrays of shape (1, 1, 1)."""
    x, y, z = np.array(place, np.float32).reshape(3, 1, 1, 1)
    return z, y, x


def _gap(place: Place, centre: Place, radii: Place) -> float:
    """Distance (approximate, mm) from a point to an ellipsoid; negative inside."""
    return float(np.linalg.norm(np.subtract(place, centre) / radii) - 1) * min(radii)


def _side(rng: np.random.Generator) -> float:
    """-1 or 1: drawn as ``rng.choice`` would, whose set-up takes longer than all else of a draw."""
    return (-1.0, 1.0)[int(rng.integers(2))]


Placed = tuple[Place, float, float, float] | None
"""Centre, HU and long axis of a lesion, HU of the tissue around it; None if the draw fell outside the organ."""


def _bone(rng: np.random.Generator, patient: Patient, radius: float) -> Placed:
    side = _side(rng)
    where = rng.choice(["vertebra", "rib", "ilium", "sacrum"], p=[0.5, 0.2, 0.2, 0.1])
    if where == "vertebra":
        z = float(rng.uniform(20, 445))
        place = (float(rng.uniform(-8, 8)), float(spine_centre(np.float32(z))) + float(rng.uniform(-5, 4)), z)
        limit = 15.0
    elif where == "rib":
        place = rib_point(int(rng.integers(1, 9)), float(rng.uniform(0.5, 2.1)), side)
        limit = 13.0
    elif where == "ilium":
        place = (side * float(rng.uniform(60, 72)), float(rng.uniform(38, 56)), float(rng.uniform(460, 500)))
        limit = 12.0
    else:
        place = (side * float(rng.uniform(12, 36)), 52.0, float(rng.uniform(468, 505)))
        limit = 12.0
    hu = float(rng.uniform(700, 950) if rng.random() < 0.4 else rng.uniform(40, 80))
    return place, hu, 2 * min(radius, limit), _MARROW_HU


def _abdomen(rng: np.random.Generator, patient: Patient, radius: float) -> Placed:
    stations: list[Place] = [
        (26, 14, 330), (28, 16, 370), (24, 16, 405), (-34, 16, 345), (-34, 18, 385), (-22, -2, 310), (42, 24, 290),
        (-42, 26, 298), (20, -32, 395), (-20, -34, 410), (30, -30, 430), (0, -30, 375), (30, -8, 300), (-60, -52, 400),
        (70, -30, 380), (-76, -20, 440), (60, -46, 430),
    ]  # fmt: skip
    if rng.random() < 0.15:
        place = _near(rng, [(88 + patient.shift["spleen"][0], 30.0, 268.0)], 6.0)
        spleen = patient.hu["spleen"]
        return place, spleen - float(rng.uniform(35, 60)), 2 * min(radius, 12.0), spleen
    return _near(rng, stations, 5.0), _enhanced(rng, patient), 2 * radius, _FAT_HU


def _mediastinum(rng: np.random.Generator, patient: Patient, radius: float) -> Placed:
    stations: list[Place] = [
        (-20, 2, 82), (-20, 4, 98), (2, 18, 132), (30, -12, 102), (-42, 12, 128), (44, 16, 124), (4, -46, 90),
        (-4, -48, 112), (-10, 34, 190), (34, -20, 28), (-34, -20, 28), (0, -36, 70),
    ]  # fmt: skip
    return _near(rng, stations, 3.5), _enhanced(rng, patient), 2 * min(radius, 17.0), _FAT_HU


def _liver(rng: np.random.Generator, patient: Patient, radius: float) -> Placed:
    place = _pick(rng, (-130, -80, 205), (50, 80, 370))
    z, y, x = _block(place)
    limit = -min(0.85 * radius, 14.0)
    # The cheapest first: most draws fall outside.
    inside = max(place[2] - 330, (diaphragm_height(y, x) - z).item() + 3)
    if inside <= limit:
        inside = max(inside, liver_distance(patient, z, y, x).item())
    if inside <= limit:
        # Bowel, kidney and gallbladder lie in hollows of its under surface.
        kidney = _gap(place, patient.moved("kidney_r", -60, 32, 350), patient.sized("kidney_r", 26, 30, 55))
        bladder = _gap(place, patient.moved("gallbladder", -46, -40, 326), patient.sized("gallbladder", 15, 17, 27))
        inside = max(inside, cavity_distance(z, y, x).item() + 3, -kidney, -bladder)
    if inside > limit:
        return None
    delta = -float(rng.uniform(28, 65)) if rng.random() < 0.8 else float(rng.uniform(28, 45))
    return place, patient.hu["liver"] + delta, 2 * min(radius, -inside / 0.85), patient.hu["liver"]


def _lung(rng: np.random.Generator, patient: Patient, radius: float) -> Placed:
    place = _pick(rng, (-120, -85, 25), (120, 78, 285))
    z, y, x = _block(place)
    dome = diaphragm_height(y, x)
    if (z - dome).item() > -0.7 * radius:  # most draws that miss
        return None
    inside = lung_distance(patient, z, y, x, cavity_distance(z, y, x), dome).item()
    if inside > -0.7 * radius:
        return None
    hu = float(rng.uniform(-420, -250) if rng.random() < 0.12 else rng.uniform(15, 70))
    return place, hu, 2 * min(radius, 18.0), _LUNG_HU


def _kidney(rng: np.random.Generator, patient: Patient, radius: float) -> Placed:
    side = _side(rng)
    name, z0 = ("kidney_l", 336.0) if side > 0 else ("kidney_r", 350.0)
    x, y, z = patient.moved(name, side * 60, 32, z0)
    angle = float(rng.uniform(-1.2, 1.2))
    place = (x + side * 20 * float(np.cos(angle)), y + 24 * float(np.sin(angle)), z + float(rng.uniform(-34, 34)))
    solid = rng.random() < 0.4
    hu = patient.hu["medulla"] * 0.55 + 20 if solid else float(rng.uniform(2, 16))
    return place, hu, 2 * min(radius, 17.0), patient.hu["cortex"]


def _soft_tissue(rng: np.random.Generator, patient: Patient, radius: float) -> Placed:
    place = _pick(rng, (-175, -130, 30), (175, 130, 620))
    z, y, x = _block(place)
    if body_distance(z, y, x, patient.fat_mm).item() > -4 - 0.6 * radius:
        return None
    if cavity_distance(z, y, x).item() < 4 + 0.6 * radius:
        return None
    in_fat = body_distance(z, y, x, (0.0, 0.0, 0.0)).item() > 0
    hu = float(rng.uniform(30, 60)) if in_fat else float(rng.choice([rng.uniform(5, 25), rng.uniform(95, 120)]))
    return place, hu, 2 * min(radius, 16.0), _FAT_HU if in_fat else _MUSCLE_HU


def _pelvis(rng: np.random.Generator, patient: Patient, radius: float) -> Placed:
    stations: list[Place] = [
        (54, 16, 492), (-54, 16, 492), (58, -8, 525), (-58, -8, 525), (44, 22, 535), (-44, 22, 535), (38, -6, 535),
        (-38, -6, 535), (18, 34, 545), (-16, 34, 550), (72, -62, 590), (-72, -62, 590), (30, -30, 500), (-30, -28, 510),
    ]  # fmt: skip
    hu = float(rng.uniform(5, 20)) if rng.random() < 0.2 else _enhanced(rng, patient)
    return _near(rng, stations, 4.0), hu, 2 * radius, _MUSCLE_HU


_PLACERS: dict[int, Callable[[np.random.Generator, Patient, float], Placed]] = {
    1: _bone, 2: _abdomen, 3: _mediastinum, 4: _liver, 5: _lung, 6: _kidney, 7: _soft_tissue, 8: _pelvis,
}  # fmt: skip
