"""The files that findings can be written to, each under a name; :data:`FORMATS` is the table of them.

Light, so that the command's help can list them: what writes them is imported when it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mmpluld.compat.extras import check_extra
from mmpluld.errors import InputError, did_you_mean
from mmpluld.io.findings.label_map import BOXES, MASKS

if TYPE_CHECKING:
    from mmpluld.structures import CTVolume, ScanFindings

__all__ = ["DEFAULT_FORMATS", "FORMATS", "Format", "check_formats", "check_scan", "output_names", "parse_formats"]


@dataclass(frozen=True)
class Format:
    """One kind of output.

    Attributes:
        file: Name of its file, or folder of files, in the output folder.
        text: What it is, in a few words.
        write: Writes it, given the path, the findings, and whether identifiers of the scan may be written.
        more: Names of files that it may write beside that one.
        extra: The extra of the package that it needs.
        check: Refuses a scan whose findings it cannot hold.
    """

    file: str
    text: str
    write: Callable[[Path, ScanFindings, bool], None]
    more: tuple[str, ...] = ()
    extra: str | None = None
    check: Callable[[CTVolume], None] | None = None


def _json(path: Path, found: ScanFindings, identifiers: bool) -> None:
    found.detections.save(path)


def _csv(path: Path, found: ScanFindings, identifiers: bool) -> None:
    from mmpluld.io import write_findings_csv

    write_findings_csv(path, found.findings)


def _html(path: Path, found: ScanFindings, identifiers: bool) -> None:
    from mmpluld.visualization import write_report

    # Called as its result is: several series of a folder all have that folder as their source.
    write_report(path, replace(found.volume, source=found.name), found.findings, found.details)


def _png(path: Path, found: ScanFindings, identifiers: bool) -> None:
    from mmpluld.visualization import write_overlays

    path.mkdir()
    write_overlays(path, found.volume, found.findings)


def _luna16(path: Path, found: ScanFindings, identifiers: bool) -> None:
    from mmpluld.io.findings.luna16 import write_luna16

    write_luna16(path, found, identifiers)


def _slicer(path: Path, found: ScanFindings, identifiers: bool) -> None:
    from mmpluld.io.findings.markups import write_markups

    write_markups(path, found)


def _nifti(path: Path, found: ScanFindings, identifiers: bool) -> None:
    from mmpluld.io.findings.label_map import write_label_maps

    write_label_maps(path, found)


def _coco(path: Path, found: ScanFindings, identifiers: bool) -> None:
    from mmpluld.io.findings.coco import write_coco

    write_coco(path, found)


def _sr(path: Path, found: ScanFindings, identifiers: bool) -> None:
    from mmpluld.io.findings.dicom_sr import write_sr

    write_sr(path, found, identifiers)


def _seg(path: Path, found: ScanFindings, identifiers: bool) -> None:
    from mmpluld.io.findings.dicom_seg import write_seg

    write_seg(path, found, identifiers)


def _rtstruct(path: Path, found: ScanFindings, identifiers: bool) -> None:
    from mmpluld.io.findings.rtstruct import write_rtstruct

    write_rtstruct(path, found, identifiers)


def _dicom(volume: CTVolume) -> None:
    from mmpluld.io.findings.dicom_source import check_source

    check_source(volume)


FORMATS = {
    "json": Format("detections.json", "detection record, which `mmpluld evaluate` reads", _json),
    "csv": Format("findings.csv", "table in LPS millimetres", _csv),
    "html": Format("report.html", "report to look at", _html),
    "png": Format("pictures", "a picture of each finding, for papers", _png),
    "luna16": Format("luna16.csv", "candidates of LUNA16: centre in LPS millimetres and score", _luna16),
    "slicer": Format("findings.mrk.json", "markups of 3D Slicer, a ROI each", _slicer),
    "nifti": Format(BOXES, "label maps of boxes, and of masks if there are some", _nifti, (MASKS,)),
    "coco": Format("coco.json", "COCO: boxes and masks on key slices", _coco),
    "dicom-sr": Format("sr.dcm", "DICOM SR of measurements (TID 1500)", _sr, extra="dicom", check=_dicom),
    "dicom-seg": Format("seg.dcm", "DICOM SEG, a segment each", _seg, extra="dicom", check=_dicom),
    "rtstruct": Format("rtstruct.dcm", "DICOM RTSTRUCT, a structure each", _rtstruct, check=_dicom),
}
DEFAULT_FORMATS = ("json", "csv", "html")


def parse_formats(words: Sequence[str]) -> list[str]:
    """Names of formats given as words or, with commas, several in one.

    Raises:
        InputError: If one is unknown, none is given, or what one needs is not installed.
    """
    names = [name for word in words for name in word.split(",") if name]
    check_formats(names)
    return list(dict.fromkeys(names))


def check_formats(names: Sequence[str]) -> list[Format]:
    """The formats of these names.

    Raises:
        InputError: If one is unknown, none is given, or what one needs is not installed.
    """
    if isinstance(names, str):  # whose letters would be taken for names
        raise InputError(f"formats are {names!r}; give a list of names, such as [{names!r}]")
    for name in names:
        if name not in FORMATS:
            hint = did_you_mean(name, FORMATS, "choose of them")
            raise InputError(f"format {name!r} is unknown; allowed are {', '.join(FORMATS)}{hint}")
        if (extra := FORMATS[name].extra) is not None:
            check_extra(extra, f"format {name!r}")
    if not names:
        raise InputError(f"no format is given; allowed are {', '.join(FORMATS)}")
    return [FORMATS[name] for name in dict.fromkeys(names)]


def check_scan(names: Sequence[str], volume: CTVolume) -> None:
    """Check that findings of a scan can be written in these formats.

    Raises:
        InputError: If they cannot, with the reason.
    """
    checks: dict[Callable[[CTVolume], None], str] = {}  # one looks into every file, so none is done twice
    for name in names:
        if (check := FORMATS[name].check) is not None:
            checks.setdefault(check, name)
    for check, name in checks.items():
        try:
            check(volume)
        except InputError as error:
            raise InputError(f"{error} (format {name})") from None


def output_names() -> list[str]:
    """Names of all files and folders that any format writes: what may be replaced in an output folder."""
    return [name for kind in FORMATS.values() for name in (kind.file, *kind.more)]
