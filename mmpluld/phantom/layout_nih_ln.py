"""One phantom series as NIH-LN stores it: DICOM slices, an instance mask, and text files of positions and sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from mmpluld.atomic import atomic_path, atomic_write_text
from mmpluld.phantom.case import PhantomCase, PhantomSeries, make_case
from mmpluld.phantom.placement import centre_and_sides, flipped, full_mask
from mmpluld.phantom.spec import PhantomSpec
from mmpluld.typing import FloatArray

__all__ = ["nih_ln_case", "write_nih_ln_series"]

_UID = "1.2.826.0.1.3680043.10.1339"
_CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
_INTERCEPT = -1024
_DRAWS = 10
_REGIONS = {"mediastinum": ("chest", "torso"), "abdomen": ("abdomen", "torso")}


def nih_ln_case(seed: int, patient: int, spec: PhantomSpec) -> PhantomCase:
    """Draw a patient who has a node, as all of this dataset do: again where there is none, ten times at most.

    Args:
        seed, spec: As in `make_case`. Of the regions those are taken where the patient's kind of node is, if any.
        patient: From 1.
    """
    kind = _kind(patient)
    own = tuple(region for region in spec.regions if region in _REGIONS[kind])
    spec = replace(spec, regions=own or spec.regions)
    for draw in range(_DRAWS):
        case = make_case(seed, f"nih-ln/{draw}", patient, spec)
        if any(lesion.type_name == kind for lesion in case.lesions):
            break
    return case


def _kind(patient: int) -> str:
    """Type of the lesions that stand for a patient's lymph nodes."""
    return "mediastinum" if patient % 2 else "abdomen"


def write_nih_ln_series(root: Path, patient: int, series: PhantomSeries) -> str:
    """Write one case under ``root``; even patients are abdominal, odd ones mediastinal. Returns its id."""
    abdominal = _kind(patient) == "abdomen"
    name = f"{'ABD' if abdominal else 'MED'}_LYMPH_{patient:03d}"
    # This dataset's grid runs to the Left, Posterior, Superior.
    array, affine = flipped(series.volume.array, series.volume.affine_lps, (0,))
    _write_dicom(root / "CT Lymph Nodes" / name / "01-01-2000-CT" / "1.000000-CT", name, patient, array, affine)
    nodes = [lesion for lesion in series.lesions if lesion.type_name == _kind(patient)]
    labels = np.zeros(array.shape, np.uint8)
    indices, points, sizes = [], [], []
    for number, node in enumerate(nodes, start=1):
        labels[full_mask(series, node)[::-1]] = number
        centre, sides = centre_and_sides(series, node)
        index = np.linalg.solve(affine[:3, :3], np.array(centre) - affine[:3, 3])
        indices.append(" ".join(str(round(value)) for value in index))
        points.append(" ".join(f"{value:.6g}" for value in centre))
        short, long = sorted(sides[:2])
        sizes.append(f"{short:.4g} {long:.4g}" if abdominal else f"{short:.4g}")
    _write_mask(root / "MED_ABD_LYMPH_MASKS" / name / f"{name}_mask.nii.gz", labels, affine)
    for kind, lines in (("indices", indices), ("physicalPoints", points), ("sizes", sizes)):
        path = root / "MED_ABD_LYMPH_ANNOTATIONS" / name / f"{name}_lymphnodes_{kind}.txt"
        atomic_write_text(path, "".join(f"{line}\n" for line in lines))
    return name


def _write_mask(path: Path, labels: npt.NDArray[np.uint8], affine: FloatArray) -> None:
    import nibabel as nib

    image: Any = nib.Nifti1Image(labels.transpose(), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nib.save(image, temporary)


def _write_dicom(folder: Path, name: str, patient: int, array: npt.NDArray[np.int16], affine: FloatArray) -> None:
    """Write (z, y, x) HU as one file a slice; numbers count from the top slice, as scanners do."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    folder.mkdir(parents=True, exist_ok=True)
    depth, height, width = array.shape
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    for k in range(depth):
        number = depth - k
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = _CT_STORAGE
        meta.MediaStorageSOPInstanceUID = f"{_UID}.{patient}.{number}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"1-{number:03d}.dcm"
        item = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        item.SOPClassUID, item.SOPInstanceUID = _CT_STORAGE, meta.MediaStorageSOPInstanceUID
        item.SeriesInstanceUID, item.StudyInstanceUID = f"{_UID}.{patient}", f"{_UID}.{patient}.0"
        item.Modality, item.PatientID, item.PatientName = "CT", name, name
        item.InstanceNumber, item.ImageType = number, ["ORIGINAL", "PRIMARY", "AXIAL"]
        item.Rows, item.Columns, item.SamplesPerPixel = height, width, 1
        item.PhotometricInterpretation, item.PixelRepresentation = "MONOCHROME2", 1
        item.BitsAllocated, item.BitsStored, item.HighBit = 16, 16, 15
        item.PixelSpacing = [f"{spacing[1]:.8g}", f"{spacing[0]:.8g}"]
        item.SliceThickness = f"{spacing[2]:.8g}"
        item.ImagePositionPatient = [f"{value:.10g}" for value in affine[:3, 3] + k * affine[:3, 2]]
        item.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        item.RescaleSlope, item.RescaleIntercept = 1, _INTERCEPT
        item.PixelData = (array[k].astype(np.int32) - _INTERCEPT).astype("<i2").tobytes()
        item.save_as(path, enforce_file_format=True)
