"""From a seed to CT series with complete truth."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from mmpluld.phantom.acquisition import Scan, acquire
from mmpluld.phantom.lesions import Lesion, at_study, draw_lesions
from mmpluld.phantom.patient import Patient, make_patient, with_study
from mmpluld.phantom.radiologist import Measurement, mark_chance, measure
from mmpluld.phantom.spec import REGIONS_MM, PhantomSpec
from mmpluld.phantom.streams import patient_stream
from mmpluld.structures import LESION_TYPES, CTVolume
from mmpluld.typing import BoolArray

__all__ = ["PhantomCase", "PhantomLesion", "PhantomSeries", "make_case", "make_phantom"]


@dataclass(frozen=True)
class PhantomLesion:
    """One lesion as it appears in one series.

    Attributes:
        number: Identity within the patient; the same lesion has the same number in every study and series.
        type: 1 to 8 as in DeepLesion; `type_name` in words.
        box: Voxel edges (x1, y1, z1, x2, y2, z2), slices counted from 0: hull of `slices`, so padded in the plane.
        mask_box: The same without padding: it just holds the mask.
        mask: Bool, shape of `mask_box`.
        key_slice: Slice with the largest cross-section.
        slices: RECIST measurement of every slice where the long diameter is at least 4 mm.
        marked: True if the radiologist measured it, on its key slice.
        noisy: True if the mark is displaced.
        contrast_hu: Mean HU of the lesion minus its surroundings, without noise.
    """

    number: int
    type: int
    box: tuple[float, float, float, float, float, float]
    mask_box: tuple[int, int, int, int, int, int]
    mask: BoolArray = field(repr=False)
    key_slice: int
    slices: dict[int, Measurement] = field(repr=False)
    marked: bool
    noisy: bool
    contrast_hu: float

    @property
    def type_name(self) -> str:
        """Type in words."""
        return LESION_TYPES[self.type]


@dataclass(frozen=True)
class PhantomSeries:
    """One CT series: volume, all its lesions, how it was taken; `organs` holds numbers of `Organ`, or is None."""

    study: int
    series: int
    volume: CTVolume
    lesions: tuple[PhantomLesion, ...]
    kernel: str
    phase: str
    region: str
    organs: npt.NDArray[np.uint8] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class PhantomCase:
    """One patient with all studies and series; studies and series count from 1."""

    patient: int
    sex: str
    age: int
    series: tuple[PhantomSeries, ...]

    @property
    def volume(self) -> CTVolume:
        """Volume of the first series."""
        return self.series[0].volume

    @property
    def lesions(self) -> tuple[PhantomLesion, ...]:
        """Lesions of the first series."""
        return self.series[0].lesions

    def series_id(self, series: PhantomSeries) -> str:
        """DeepLesion's name of a series: PPPPPP_SS_RR."""
        return f"{self.patient:06d}_{series.study:02d}_{series.series:02d}"


def make_phantom(seed: int, patient: int = 1, **settings: Any) -> PhantomCase:
    """Make one synthetic patient.

    Args:
        seed: Same seed, patient number and settings give the same bytes; no patient of the data sets' layouts is the
            same one, whatever their seeds.
        patient: Number of the patient, from 1.
        settings: Fields of `PhantomSpec`, for example ``size=128, regions=("chest",)``.

    Raises:
        InputError: If a setting is unknown or outside its range.

    Example:
        >>> case = make_phantom(0, size=64, max_slices=8)
        >>> case.volume.shape[1:]
        (64, 64)
    """
    return make_case(seed, "scan", patient, PhantomSpec.from_settings(settings))


def make_case(seed: int, stream: str, patient: int, spec: PhantomSpec, organs: bool = False) -> PhantomCase:
    """`make_phantom` with checked settings, for the patients of a data set or of a part of one.

    Args:
        seed, patient: As in `make_phantom`.
        stream: Name of the data set and its part, see `patient_stream`.
        spec: Settings.
        organs: Give the series maps of their organs; nothing else changes.
    """
    # Its matrix products are small: threads would cost more than they bring, and the writer runs one process per core.
    with threadpool_limits(limits=1, user_api="blas"):
        return _make_case(patient_stream(seed, stream, patient), patient, spec, organs)


def _make_case(rng: np.random.Generator, patient: int, spec: PhantomSpec, organs: bool) -> PhantomCase:
    body = make_patient(rng, spec.phases)
    region = str(rng.choice(list(spec.regions)))
    low, high = REGIONS_MM[region]
    scale_z = body.frame.scale[0]
    first_interval = float(rng.choice(list(spec.intervals_mm)))
    span = min(high - low, spec.max_slices * first_interval / scale_z)
    start = float(rng.uniform(low, high - span)) if span < high - low else low
    lesions = draw_lesions(rng, body, (start, start + span), spec)
    taken: list[PhantomSeries] = []
    for study in range(int(rng.integers(1, spec.max_studies + 1))):
        today = body if study == 0 else with_study(body, rng, spec.phases)
        present = [grown for lesion in lesions if (grown := at_study(lesion, study, body, today)) is not None]
        for number in range(int(rng.integers(1, spec.max_series + 1))):
            interval = float(rng.choice(list(spec.intervals_mm))) if taken else first_interval
            scan = _plan(rng, today, spec, interval, (start, start + span), present)
            # Every series is read on its own: a lesion can be marked in one and not in the next.
            decisions = {lesion.number: float(rng.random()) for lesion in present}
            taken.append(_series(rng, today, present, decisions, scan, spec, (study + 1, number + 1, region), organs))
    return PhantomCase(patient, body.sex, body.age, tuple(taken))


def _plan(
    rng: np.random.Generator,
    patient: Patient,
    spec: PhantomSpec,
    interval: float,
    z_range: tuple[float, float],
    lesions: list[Lesion],
) -> Scan:
    """Choose kernel, field of view and table; a short stack is laid over one of the lesions."""
    scale_z, _, scale_x = patient.frame.scale
    low, high = z_range[0] * scale_z, z_range[1] * scale_z
    count = max(3, int((high - low) / interval + 1e-6))  # 39.999... mm hold 16 slices of 2.5 mm
    if count > spec.max_slices:
        count = spec.max_slices
        target = rng.choice([lesion.centre[2] for lesion in lesions]) if lesions else rng.uniform(*z_range)
        low = float(np.clip(target * scale_z - count * interval * rng.uniform(0.3, 0.7), low, high - count * interval))
    width = (2 * 158 + 2 * patient.fat_mm[1]) * scale_x
    fov = spec.fov_mm or float(np.clip(width * rng.uniform(1.04, 1.18), 300, 500))
    kernel = "sharp" if rng.random() < spec.sharp_prob else "soft"
    noise = float(rng.uniform(*spec.noise_hu)) * (2.0 if kernel == "sharp" else 1.0) * (5 / interval) ** 0.25
    offset = rng.normal(0, 4, 2)
    return Scan(
        size=spec.size,
        pixel_mm=fov / spec.size,
        first_mm=low,
        interval_mm=interval,
        count=count,
        kernel=kernel,
        noise_hu=noise,
        offset_xy=(float(offset[0]), float(offset[1])),
    )


def _series(
    rng: np.random.Generator,
    patient: Patient,
    lesions: list[Lesion],
    decisions: dict[int, float],
    scan: Scan,
    spec: PhantomSpec,
    label: tuple[int, int, str],
    with_organs: bool,
) -> PhantomSeries:
    """Acquire one series and let the radiologist read it."""
    organs = np.zeros((scan.count, scan.size, scan.size), np.uint8) if with_organs else None
    image, shares, contrast = acquire(rng, patient, lesions, scan, organs)
    found = []
    for lesion in lesions:
        if lesion.number in shares:
            origin, share = shares[lesion.number]
            slices = {
                origin[0] + k: result
                for k in range(len(share))
                if (result := measure(share[k], origin[1:], scan.pixel_mm, spec.pad_mm, spec.size))
            }
            if slices:
                found.append((lesion, origin, share, slices))
    # How far a lesion is from being marked: a draw in [0, 1], over its chance.
    distance = {
        lesion.number: decisions[lesion.number] / max(mark_chance(lesion.type, 2 * max(lesion.radii), spec), 1e-9)
        for lesion, *_ in found
    }
    marked = {number for number, value in distance.items() if value < 1}
    if found and not marked and spec.mark_prob > 0:
        marked.add(min(distance, key=lambda number: (distance[number], number)))
    results = tuple(
        _result(lesion, origin, share, slices, lesion.number in marked, bool(rng.random() < spec.noisy_prob), contrast)
        for lesion, origin, share, slices in found
    )
    study, number, region = label
    axis = scan.axis()
    volume = CTVolume.from_canonical(
        image,
        (scan.interval_mm, scan.pixel_mm, scan.pixel_mm),
        (float(axis[0] + scan.offset_xy[0]), float(axis[0] + scan.offset_xy[1]), -scan.first_mm),
        f"phantom {region} study {study} series {number}",
    )
    return PhantomSeries(study, number, volume, results, scan.kernel, patient.phase, region, organs)


def _result(
    lesion: Lesion,
    origin: tuple[int, int, int],
    share: npt.NDArray[np.float32],
    slices: dict[int, Measurement],
    marked: bool,
    noisy: bool,
    contrast: dict[int, float],
) -> PhantomLesion:
    mask = share > 0.5
    mask &= np.array([origin[0] + k in slices for k in range(len(mask))])[:, None, None]
    spans = [np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis))) for axis in range(3)]
    (z1, y1, x1), (z2, y2, x2) = ([int(s[0]) for s in spans], [int(s[-1]) + 1 for s in spans])
    boxes = np.array([m.box for m in slices.values()])
    low, high = boxes[:, :2].min(0), boxes[:, 2:].max(0)
    areas = mask.sum(axis=(1, 2))
    return PhantomLesion(
        number=lesion.number,
        type=lesion.type,
        box=(
            float(low[0]),
            float(low[1]),
            float(origin[0] + z1),
            float(high[0]),
            float(high[1]),
            float(origin[0] + z2),
        ),
        mask_box=(origin[2] + x1, origin[1] + y1, origin[0] + z1, origin[2] + x2, origin[1] + y2, origin[0] + z2),
        mask=mask[z1:z2, y1:y2, x1:x2],
        key_slice=origin[0] + int(areas.argmax()),
        slices=slices,
        marked=marked,
        noisy=marked and noisy,
        contrast_hu=contrast[lesion.number],
    )
