"""What a phantom may look like: the settings, checked once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from mmpluld.errors import InputError, did_you_mean
from mmpluld.structures import LESION_TYPES

__all__ = ["PHASES", "REGIONS_MM", "PhantomSpec"]

PHASES = ("native", "arterial", "portal")
"""Contrast phases."""

REGIONS_MM: dict[str, tuple[float, float]] = {
    "chest": (12.0, 300.0),
    "abdomen": (205.0, 470.0),
    "pelvis": (410.0, 618.0),
    "torso": (12.0, 618.0),
}
"""Scan ranges along the standard torso, mm below the lung apices' upper plane."""


@dataclass(frozen=True)
class PhantomSpec:
    """Settings of a synthetic CT study.

    Args:
        size: Image rows and columns, 32 to 1024.
        fov_mm: Side of the square image; None fits it to the patient (about 360 mm, so 2.8 mm pixels at 128).
        regions: Scan ranges to draw from, keys of `REGIONS_MM`; one is drawn per patient.
        intervals_mm: Slice intervals to draw from; each series draws its own. Slices are as thick as their interval.
        max_slices: Upper limit of slices per series; a longer range is cut to a random part of this length.
        max_studies: Studies per patient are drawn from 1 to this; lesions grow, shrink, appear and vanish between them.
        max_series: Series per study are drawn from 1 to this; same anatomy, other interval and kernel.
        lesions_per_series: Mean number of lesions in the scan range of a patient.
        min_long_mm: Smallest long axis that is drawn; lesions go up to 45 mm.
        lesion_mix: Relative frequencies of the lesion types by DeepLesion's name; empty for those of DeepLesion.
        contrast_hu: HU by which lesions differ more from the tissue around them, to the side on which they lie. At 0
            some are almost invisible, as in patients.
        phases: Contrast phases to draw from, keys of `PHASES`, all as likely; empty draws them as DeepLesion has them,
            mostly portal.
        sharp_prob: Chance of a sharp kernel, in [0, 1].
        mark_prob: Chance that the "radiologist" marks an ordinary lesion, in [0, 1]. At least one lesion per series is
            marked, unless `mark_prob` is 0.
        mark_bias: How much the chance depends on the lesion, in [0, 1]: 0 marks at random, at 1 small ones, those of
            the lung and the liver and nodes are marked rarely, large ones often. See `mark_chance`.
        noise_hu: Range of the noise standard deviation in HU for soft kernels; sharp ones have twice as much.
        pad_mm: Margin on each side of the RECIST extent to make a box; DeepLesion's 5 pixels are about 4 mm.
        noisy_prob: Chance that a mark is displaced and flagged `Possibly_noisy`.

    Raises:
        InputError: If a setting is outside its range; the message names it.
    """

    size: int = 128
    fov_mm: float | None = None
    regions: tuple[str, ...] = ("chest", "abdomen", "pelvis")
    intervals_mm: tuple[float, ...] = (2.0, 2.5, 5.0, 5.0)
    max_slices: int = 64
    max_studies: int = 1
    max_series: int = 1
    lesions_per_series: float = 6.0
    min_long_mm: float = 8.0
    lesion_mix: dict[str, float] = field(default_factory=dict)
    contrast_hu: float = 0.0
    phases: tuple[str, ...] = ()
    sharp_prob: float = 0.25
    mark_prob: float = 0.5
    mark_bias: float = 0.0
    noise_hu: tuple[float, float] = (9.0, 14.0)
    pad_mm: float = 4.0
    noisy_prob: float = 0.005

    def __post_init__(self) -> None:
        self._check_names()
        low, high = self.noise_hu
        checks = {
            "size": (32 <= self.size <= 1024, "from 32 to 1024"),
            "fov_mm": (self.fov_mm is None or 100 <= self.fov_mm <= 1000, "None or from 100 to 1000"),
            "regions": (len(self.regions) > 0, "at least one region"),
            "intervals_mm": (
                len(self.intervals_mm) > 0 and all(0.5 <= v <= 10 for v in self.intervals_mm),
                "one or more values from 0.5 to 10",
            ),
            "max_slices": (self.max_slices >= 3, "3 or more"),
            "max_studies": (1 <= self.max_studies <= 99, "from 1 to 99"),
            "max_series": (1 <= self.max_series <= 99, "from 1 to 99"),
            "lesions_per_series": (0 <= self.lesions_per_series <= 40, "from 0 to 40"),
            "min_long_mm": (4 <= self.min_long_mm <= 30, "from 4 to 30"),
            "lesion_mix": (
                all(0 <= weight < math.inf for weight in self.lesion_mix.values())
                and (not self.lesion_mix or sum(self.lesion_mix.values()) > 0),
                "finite weights of 0 or more, one above 0",
            ),
            "contrast_hu": (0 <= self.contrast_hu <= 500, "from 0 to 500"),
            "sharp_prob": (0 <= self.sharp_prob <= 1, "from 0 to 1"),
            "mark_prob": (0 <= self.mark_prob <= 1, "from 0 to 1"),
            "mark_bias": (0 <= self.mark_bias <= 1, "from 0 to 1"),
            "noise_hu": (0 <= low <= high <= 200, "a range (low, high) within 0 to 200"),
            "pad_mm": (0 <= self.pad_mm <= 40, "from 0 to 40"),
            "noisy_prob": (0 <= self.noisy_prob <= 1, "from 0 to 1"),
        }
        for name in ("size", "max_slices", "max_studies", "max_series"):
            valid, allowed = checks[name]
            checks[name] = (valid and isinstance(getattr(self, name), int), f"a whole number {allowed}")
        for name, (valid, allowed) in checks.items():
            if not valid:
                raise InputError(f"phantom {name}={getattr(self, name)!r}: must be {allowed}; change this setting")

    def _check_names(self) -> None:
        """Refuse what is no list of names, and unknown names."""
        if not isinstance(self.lesion_mix, dict):
            raise InputError(
                f"phantom lesion_mix={self.lesion_mix!r}: must be weights by type; write lesion_mix={{'lung': 1}}"
            )
        known = {"regions": REGIONS_MM, "phases": PHASES, "lesion_mix": list(LESION_TYPES.values())}
        for setting, names in known.items():
            given = getattr(self, setting)
            if isinstance(given, str):  # else its letters would be taken for names
                raise InputError(f"phantom {setting}={given!r}: must be a list of names; write {setting}=[{given!r}]")
            for name in given:
                if name not in names:
                    hint = did_you_mean(name, names)
                    raise InputError(f"phantom {setting}: {name!r} is none of {', '.join(names)}{hint}")

    @classmethod
    def from_settings(cls, settings: dict[str, Any]) -> PhantomSpec:
        """Build from keyword settings; an unknown name raises `InputError` with the closest known one."""
        known = [field.name for field in fields(cls)]
        for name in settings:
            if name not in known:
                hint = did_you_mean(name, known, f"known are {', '.join(known)}")
                raise InputError(f"phantom setting {name!r} does not exist{hint}")
        try:
            return cls(**settings)
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            name = next(name for name in settings if cls._has_wrong_type(name, settings[name]))
            raise InputError(
                f"phantom {name}={settings[name]!r}: has the wrong type; needed is one like {getattr(cls(), name)!r}, "
                "the default; change this setting"
            ) from error

    @classmethod
    def _has_wrong_type(cls, name: str, value: Any) -> bool:
        """Whether a setting cannot even be compared with its limits."""
        try:
            cls(**{name: value})
        except InputError:
            return False
        except (TypeError, ValueError):
            return True
        return False
