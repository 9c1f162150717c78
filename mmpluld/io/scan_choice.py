"""Which of the scans that were found are meant, and what their results are called."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace

from mmpluld.errors import InputError, did_you_mean, name_some, printable
from mmpluld.inputs import own_path
from mmpluld.io.archives import is_archive
from mmpluld.io.dicom_series import Choice, SeriesFacts
from mmpluld.io.hounsfield import Units
from mmpluld.io.scans import Scan, ScanReader, find_scans
from mmpluld.progress import note
from mmpluld.structures.volume import CTVolume
from mmpluld.typing import StrPath

__all__ = ["ALL", "SeveralSeriesError", "choose_scans", "place_digest", "read_scan", "result_names", "safe_name"]

ALL = "all"
"""What ``--series`` is to be for every series."""
_FEWEST_POSITIONS = 3  # images at fewer places are a topogram or watch a contrast bolus
_NAME_BYTES = 80
_ODD = re.compile(r"[^\w.+=@,()-]+")


class SeveralSeriesError(InputError):
    """Several series of one patient, and none is chosen.

    Attributes:
        scans: All of them.
    """

    def __init__(self, text: str, scans: Sequence[Scan]) -> None:
        super().__init__(text)
        self.scans = list(scans)


def choose_scans(scans: Sequence[Scan], series: str | None = None) -> list[Scan]:
    """Choose scans.

    Without ``series`` these are all, unless one input holds several series of one patient: then the only one that is a
    volume is taken, with a note, if the others have images at fewer than three places.

    Args:
        scans: What was found.
        series: A number, from 1, in ``scans``; a SeriesInstanceUID; ``UID:ATTRIBUTE=VALUE`` or ``ATTRIBUTE=VALUE``, see
            :mod:`mmpluld.io.dicom_series`; or ``all``.

    Raises:
        InputError: None is meant. A :class:`SeveralSeriesError` where it is not said which.
    """
    if series == ALL:
        return list(scans)
    if series is None:
        return _without_choice(scans, scans)
    if series.isdecimal() and not any(scan.facts and scan.facts.uid == series for scan in scans):
        if not 1 <= int(series) <= len(scans):
            if len(scans) == 1 and scans[0].fault:
                raise InputError(scans[0].fault)
            raise InputError(f"--series {series}: is no number from 1 to {len(scans)}, as the scans have; see --list")
        return [scans[int(series) - 1]]
    dicom = [scan for scan in scans if scan.facts is not None]
    if not dicom:
        if len(scans) == 1 and scans[0].fault:
            raise InputError(scans[0].fault)
        raise InputError(f"{scans[0].given}: has no DICOM series, so '{series}' cannot be chosen; leave --series out")
    return _of_series(scans, dicom, series)


def read_scan(path: StrPath, series: str | None = None, units: Units | None = None) -> CTVolume:
    """Read the scan of an input, whatever kind it is of.

    Args:
        path: As :func:`~mmpluld.io.scans.find_scans` takes it.
        series: As :func:`choose_scans` takes it, where the input holds several scans.
        units: See :func:`~mmpluld.io.read_volume`.

    Raises:
        InputError: There is none, or there are several, or it cannot be read.
    """
    with ScanReader() as reader:
        scans = choose_scans(find_scans([path], reader, series), series)
        if len(scans) > 1:
            names = name_some([f"{number} {printable(scan.inner)}" for number, scan in enumerate(scans, 1)])
            raise InputError(f"{path}: holds {len(scans)} scans ({names}); choose one by its number as series")
        volume = reader.read(scans[0], units)
        return replace(volume, source_files=()) if is_archive(scans[0].given) else volume  # they are removed


def result_names(scans: Sequence[Scan], taken: Collection[str] = (), paths: bool = False) -> list[str]:
    """A name for each scan's result, safe as that of a folder and unique; other scans beside it do not change it,
    unless they are called alike. A part of a series has another name than the whole and than other parts.

    Args:
        scans: The scans.
        taken: Names that none may have.
        paths: Take the path below the input into the name, which often names a patient.
    """
    chosen = Counter(scan.given for scan in scans)
    names, hashed = [], []
    for scan in scans:
        parts = [scan.title]
        several = chosen[scan.given] > 1 or _is_one_of_several(scan)
        if paths and scan.inner and several:
            folders = scan.inner.split("/")
            parts = [*folders[:-1], scan.title] if scan.facts is None else folders
        names.append(safe_name("_".join(parts)))
        hashed.append(_is_part(scan) or (several and scan.facts is not None and not (paths and scan.inner)))
    alike = Counter(name.casefold() for name in names)
    keys = Counter(map(_identity, scans))
    occupied = {name.casefold() for name in taken}
    result: list[str] = []
    for scan, name, always in zip(scans, names, hashed, strict=True):
        if always or alike[name.casefold()] > 1 or name.casefold() in occupied:
            # Of inputs that hold files of one name, which way round they are given must not decide.
            place = f":{own_path(scan.given)}" if keys[_identity(scan)] > 1 else ""
            key = f"{_identity(scan)}{place}".encode(errors="surrogateescape")
            name = f"{name}-{hashlib.sha256(key).hexdigest()[:8]}"
        same = sum(other == name or re.fullmatch(re.escape(name) + r"-\d+", other) is not None for other in result)
        result.append(f"{name}-{same + 1}" if same else name)
    return result


def _is_one_of_several(scan: Scan) -> bool:
    """Whether there are other scans in its input, chosen or not."""
    return scan.facts is not None and scan.key == scan.facts.uid


def _is_part(scan: Scan) -> bool:
    return scan.facts is not None and (scan.series or "") != scan.facts.uid


def _identity(scan: Scan) -> str:
    """What tells a scan, or a part of a series, from others."""
    if not _is_part(scan):
        return scan.key
    assert scan.facts is not None and scan.series is not None
    return scan.series if scan.facts.uid else f"{scan.key}:{scan.series}"


def place_digest(scan: Scan) -> str:
    """What tells a scan from others that are called alike: a hash of the UID of its series, or of where it lies."""
    uid = scan.facts is not None and scan.facts.uid
    text = _identity(scan) if uid else f"{own_path(scan.given)}/{scan.inner}:{scan.series or ''}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16]


def safe_name(text: str) -> str:
    """A name of a file from any text: letters, digits and a few signs, no leading dot, at most 80 bytes."""
    name = _ODD.sub("_", printable(text)).strip("_").lstrip(".-=+@")
    while len(name.encode()) > _NAME_BYTES:
        name = name[:-1]
    return name.rstrip(".") or "scan"


def _without_choice(scans: Sequence[Scan], everything: Sequence[Scan]) -> list[Scan]:
    """The scans without what was taken for no volume; volume files beside DICOM series change nothing about these.

    Raises:
        SeveralSeriesError: Series are several of one patient.
    """
    dicom = [scan for scan in scans if scan.facts is not None]
    one_input = len({scan.given for scan in scans}) == 1
    if len(dicom) < 2 or not one_input or len({scan.facts.patient for scan in dicom if scan.facts}) > 1:
        return list(scans)
    given = scans[0].given
    volumes = [scan for scan in dicom if scan.facts and not _is_no_volume(scan.facts)]
    if len(volumes) == 1:
        place = everything.index(volumes[0]) + 1
        others = "the others" if len(dicom) == len(everything) else "the other series"
        note(f"{given}: series {place} of {len(everything)} taken; {others} have images at fewer than three places")
        return [scan for scan in scans if scan.facts is None or scan is volumes[0]]
    listed = name_some([f"{scan.facts.uid} ({scan.facts.images} files)" for scan in dicom if scan.facts], 4)
    raise SeveralSeriesError(
        f"{given}: {len(dicom)} CT series of one patient: {listed}; choose one with --series NUMBER or UID, or take "
        "each scan with --series all",
        everything,
    )


def _is_no_volume(facts: SeriesFacts) -> bool:
    """Whether the places of a series are known, and too few; of images that cannot be read nothing is known."""
    return facts.positions is not None and facts.positions < _FEWEST_POSITIONS


def _of_series(scans: Sequence[Scan], dicom: Sequence[Scan], series: str) -> list[Scan]:
    choice = Choice(scans[0].given, series)
    chosen = [scan for scan in dicom if choice.uid in (None, scan.facts.uid if scan.facts else None)]
    if not chosen:
        uids = [scan.facts.uid for scan in dicom if scan.facts]
        hint = did_you_mean(choice.uid, uids, "choose one of them")
        raise InputError(f"{scans[0].given}: no CT series '{choice.uid}'; there are {name_some(uids, 10)}{hint}")
    if choice.uid is None and len(chosen) > 1:
        chosen = [scan for scan in chosen if scan.fitting]
        if not chosen:
            raise InputError(f"{scans[0].given}: no series has an image with {series}; see --list")
    if choice.uid is None:  # by attribute; of one patient this may leave several, of which one is to be chosen
        chosen = _without_choice(chosen, scans)
    if choice.values:
        pairs = ":".join(f"{name}={value}" for name, value in sorted(choice.values.items()))
        chosen = [replace(scan, series=f"{scan.series}:{pairs}" if scan.series else pairs) for scan in chosen]
    served = {scan.given for scan in chosen}
    return [*chosen, *_unknown([scan for scan in scans if scan.given not in served], choice, series)]


def _unknown(scans: Sequence[Scan], choice: Choice, series: str) -> list[Scan]:
    """Of the scans of inputs without a chosen series those of which nothing can be read, for they may be one; of inputs
    without any a note tells.
    """
    unread = [scan for scan in scans if scan.facts and scan.facts.positions is None and choice.uid is None]
    unknown = [scan for scan in scans if scan.fault or scan in unread]
    for given in dict.fromkeys(scan.given for scan in scans):
        if all(scan.given != given for scan in unknown):
            note(f"{given}: left out, has no DICOM series that fits --series {series}")
    return unknown
