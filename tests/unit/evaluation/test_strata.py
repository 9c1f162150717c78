"""What detections on lesions of other groups are: by hand, and as an identity of the matching."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpluld.cli.main import main
from mmpluld.errors import InputError
from mmpluld.evaluation import evaluate_files, format_table
from mmpluld.evaluation.functional import LENS_3D, match_detections, sensitivity_at
from mmpluld.evaluation.pairing import Pairing, Truth
from mmpluld.evaluation.strata import long_diameter_mm, stratify
from mmpluld.structures.records import AnnotationSet, Detections, DetectionSet, LesionRecord, VolumeRecord


def box(x: float) -> tuple[float, ...]:
    return (x, 0.0, 1.0, x + 10, 10.0, 3.0)


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """One volume, a lung and a liver lesion. By falling score: liver found, a false positive, lung found."""
    volume = VolumeRecord("v", "p", "1", "1", {"kind": "png16", "path": "v"}, 0, 9, (99, 99), (2.0, 1.0, 1.0))
    lesions = [LesionRecord(0, "v", box(0), type="lung"), LesionRecord(1, "v", box(20), type="liver")]
    AnnotationSet({"name": "made", "label_scope": "all"}, [volume], lesions).save(tmp_path / "gt.json")
    found = Detections(np.array([box(20), box(60), box(0)]), np.array([0.9, 0.8, 0.7]))
    DetectionSet({"v": found}).save(tmp_path / "found.json")
    return [str(tmp_path / "found.json"), str(tmp_path / "gt.json")]


@pytest.mark.parametrize("strict", [False, True])
def test_by_hand(files: list[str], strict: bool) -> None:
    def at_half_one_two(others: str) -> dict[str, list[float]]:
        result = evaluate_files(*files, "lens-3d", strict=strict, strata=["type"], others=others)
        assert result["strata_others"] == others
        return {row["group"]: row["sensitivity"][2:5] for row in result["strata"]}

    # Ignored: one false positive, ranked between the two. Counted: the liver detection is a second one for lung.
    assert at_half_one_two("ignored") == {"liver": [1, 1, 1], "lung": [0, 1, 1]}
    assert at_half_one_two("fp") == {"liver": [1, 1, 1], "lung": [0, 0, 1]}


def test_intervals_select_images_whatever_the_choice(files: list[str]) -> None:
    for others in ("ignored", "fp"):
        result = evaluate_files(*files, "lens-3d", strata=["interval"], others=others)
        (row,) = result["strata"]
        assert (row["group"], row["sensitivity"]) == ("<= 2 mm", result["sensitivity"])


def test_choice_is_printed_and_checked(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    result = evaluate_files(*files, "lens-3d", strata=["type"], others="fp")
    assert "note: in a type or size, detections that find only other lesions are false positives" in format_table(
        result
    )
    with pytest.raises(InputError, match="others is 'tp'; allowed are 'ignored' and 'fp'"):
        evaluate_files(*files, "lens-3d", strata=["type"], others="tp")  # type: ignore[arg-type]
    assert main(["evaluate", *files, "--protocol", "lens-3d", "--by", "type", "size"]) == 0
    assert "detections that find another lesion are ignored" in capsys.readouterr().out
    assert main(["evaluate", *files, "--protocol", "lens-3d", "--others", "fp", "--by", "interval"]) == 2
    assert "--others fp says nothing without --by type or --by size" in capsys.readouterr().err


def test_diameters_in_pixels_that_are_not_square() -> None:
    volume = VolumeRecord("v", "p", "1", "1", {"kind": "png16", "path": "v"}, 0, 9, (99, 99), (5.0, 0.5, 0.8))
    marked = LesionRecord(0, "v", box(0), recist=(10, 10, 22, 18, 0, 0, 1, 1))
    assert long_diameter_mm(marked, volume) == pytest.approx(10.4)  # 12 x 0.8 along x and 8 x 0.5 along y
    boxed = LesionRecord(0, "v", (10.0, 10.0, 1.0, 21.0, 27.0, 3.0))
    assert long_diameter_mm(boxed, volume) == pytest.approx(8.8)  # of 11 x 0.8 and 17 x 0.5


@settings(max_examples=40)
@given(st.integers(0, 10**6))
def test_groups_are_evaluations_with_the_others_ignored_or_gone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    volumes = [f"v{index}" for index in range(int(rng.integers(1, 4)))]

    def boxes(count: int) -> np.ndarray:
        near = rng.integers(0, 12, size=(count, 3)).astype(float)
        return np.hstack([near, near + rng.integers(1, 8, size=(count, 3))])

    pairing = Pairing(image_volumes=volumes, patients=volumes)
    for volume in volumes:
        found = int(rng.integers(0, 12))
        pairing.detections.append(boxes(found))
        pairing.scores.append(rng.random(found))
        pairing.truth.append(boxes(int(rng.integers(0, 5))))
        pairing.ignored.append(boxes(int(rng.integers(0, 2))))
        kinds = rng.choice(["lung", "liver", "bone"], size=len(pairing.truth[-1]))
        pairing.lesions += [LesionRecord(0, volume, (0.0,) * 6, type=str(kind)) for kind in kinds]
    matches = match_detections(pairing.detections, pairing.scores, pairing.truth, LENS_3D, ignored=pairing.ignored)
    types = np.array([lesion.type for lesion in pairing.lesions])
    for others in ("ignored", "fp"):
        rows = stratify(["type"], matches, pairing, Truth("made", {}), LENS_3D, others=others)
        assert [row["group"] for row in rows] == sorted(set(types))
        for row in rows:
            chosen = np.split(types == row["group"], np.cumsum([len(part) for part in pairing.truth])[:-1])
            wanted = [part[keep] for part, keep in zip(pairing.truth, chosen, strict=True)]
            aside = list(pairing.ignored)
            if others == "ignored":
                rest = [part[~keep] for part, keep in zip(pairing.truth, chosen, strict=True)]
                aside = [np.vstack(pair) for pair in zip(aside, rest, strict=True)]
            alone = match_detections(pairing.detections, pairing.scores, wanted, LENS_3D, ignored=aside)
            assert row["sensitivity"] == pytest.approx(sensitivity_at(alone, LENS_3D.levels).tolist())
