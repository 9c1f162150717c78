"""The scans that inputs hold: found by their headers, chosen, and read one at a time.

An input is a volume file, a folder with volume files and DICOM series at any depth, a DICOMDIR, or a zip archive of
these. A :class:`Scan` says where a scan lies; :class:`ScanReader` reads it.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from mmpluld.errors import InputError, counted, name_some
from mmpluld.inputs import is_folder, own_path
from mmpluld.io.archives import Unpacked, is_archive
from mmpluld.io.dicom import TAGS
from mmpluld.io.dicom_files import DicomFolder, Unreadable, files_below, scan_files
from mmpluld.io.dicom_series import Choice, SeriesFacts, fits, refuse_no_series, series_facts
from mmpluld.io.dicomdir import add_missing, is_dicomdir, named_files
from mmpluld.io.faults import quiet
from mmpluld.io.findings.label_map import BOXES, MASKS
from mmpluld.io.hounsfield import Units
from mmpluld.io.readers import VOLUME_SUFFIXES, read_volume, volume_parts, volume_suffix
from mmpluld.progress import note
from mmpluld.structures.volume import CTVolume
from mmpluld.typing import StrPath

__all__ = ["HEADER", "Scan", "ScanReader", "find_scans", "scan_title"]

HEADER = "detect.json"
"""What a folder of the results of many scans holds; it is passed over where scans are looked for."""
_RESULTS = (BOXES, MASKS)
"""Names of the volumes among the formats of findings; no scan is called so."""
_SAMPLE = 4096  # bytes
_WANTED = f"a CT scan ({', '.join(VOLUME_SUFFIXES)}, DICOM folder, DICOMDIR or .zip)"


@dataclass(frozen=True)
class Scan:
    """Where one scan lies.

    Attributes:
        given: The input that it was found in.
        title: What it is called: the name of its file, or of the input.
        key: What tells it from other scans of the same title, wherever the data lies: the UID of its series, or its
            file's path below the input.
        inner: Path below a folder or in an archive: of the volume file, or of the folder that holds the whole series.
        files: DICOM files that are looked at, below the folder or in the archive; empty for a volume file.
        series: What the reader is asked for, as ``--series`` has it.
        facts: What its headers say of the series; None for a volume file.
        fitting: Whether it has an image with the values of attributes that are asked for.
        digest: Of names, sizes and samples of the content of its files: another one if it changed.
        fault: Why it cannot be read, as far as that is known already.
    """

    given: Path
    title: str
    key: str
    inner: str = ""
    files: tuple[str, ...] = ()
    series: str | None = None
    facts: SeriesFacts | None = None
    fitting: bool = True
    digest: str = ""
    fault: str = ""

    @property
    def place(self) -> Path:
        """Where it lies, for people."""
        return self.given / self.inner


class ScanReader:
    """Finds and reads scans; archives stay unpacked in temporary folders as long as they are needed.

    A context manager, which removes these folders. What was unpacked is there until the scan after next is read.
    """

    def __init__(self) -> None:
        self._unpacked = Unpacked()

    def __enter__(self) -> ScanReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._unpacked.close()

    def read(self, scan: Scan, units: Units | None = None) -> CTVolume:
        """Read a scan.

        Args:
            scan: One that was found.
            units: See :func:`~mmpluld.io.read_volume`.

        Raises:
            InputError: As for :func:`~mmpluld.io.read_volume`, or the scan's own fault.
        """
        if scan.fault:
            raise InputError(scan.fault)
        root = self.root(scan.given)
        try:
            if scan.facts is None:
                volume = read_volume(root / scan.inner, units=units)
            else:
                volume = read_volume(root, scan.series, units=units, files=[root / name for name in scan.files])
        except InputError as error:
            raise type(error)(_renamed(error, root, scan.given)) from None
        source = scan.given if scan.facts else scan.place
        return replace(volume, source=str(source)) if is_archive(scan.given) else volume

    def root(self, given: Path) -> Path:
        """The folder that the names of an input's files start from."""
        if given.is_dir():
            return given
        if is_archive(given):
            return self._unpacked.folder(given)
        return given.parent if is_dicomdir(given) else given


def find_scans(
    inputs: Sequence[StrPath], reader: ScanReader, series: str | None = None, out: StrPath | None = None
) -> list[Scan]:
    """Find the scans of some inputs, in their order and that of the files' names; what is wrong with an input, or with
    part of it, becomes a scan with a fault.

    Args:
        inputs: Files and folders.
        reader: What will read the scans.
        series: As for :func:`~mmpluld.io.scan_choice.choose_scans`; its attributes are looked for here.
        out: Folder of outputs, which is not looked into.

    Raises:
        InputError: An input lies in ``out``, or ``series`` names an unknown attribute.
    """
    result: list[Scan] = []
    behind = None if out is None else Path(out).resolve()
    known: set[Path] = set()
    for given in map(Path, inputs):
        place = own_path(given)
        if behind is not None and behind in (place, *place.parents):
            raise InputError(f"{given}: lies in the output folder {out}; give another output folder")
        if place in known:
            note(f"{given}: is given twice, examined once")
            continue
        known.add(place)
        choice = Choice(given, series)
        try:
            result += _in_input(given, reader, choice, behind)
        except InputError as error:
            result.append(Scan(given, scan_title(given), str(place), fault=str(error)))
    return result


def scan_title(given: Path) -> str:
    """What a scan is called: the name of its file without the ending, or of its folder, as it was given."""
    name = own_path(given.parent if is_dicomdir(given) and given.is_file() else given).name
    return _without_suffix(name)


def _in_input(given: Path, reader: ScanReader, choice: Choice, out: Path | None) -> list[Scan]:
    if not is_folder(given, _WANTED):
        if is_dicomdir(given):
            named = [item.file for item in named_files(given)]
            found = _look_through([given, *(file for file in dict.fromkeys(named) if file.exists())])
            for item in found.unreadable:
                if item.file == given:
                    raise InputError(f"{given}: {item.reason}; copy it again, or give the folder of the series")
            return _named(given, _series(given, given.parent, found, choice, whole=False) or _none(given, found))
        if not is_archive(given):
            volume_suffix(given)
            digest = _digest(given.parent, volume_parts(given))
            return [Scan(given, scan_title(given), str(own_path(given)), digest=digest)]
    root = reader.root(given)
    try:
        return _named(given, _in_folder(given, root, choice, out))
    except InputError as error:
        raise InputError(_renamed(error, root, given)) from None


def _in_folder(given: Path, root: Path, choice: Choice, out: Path | None) -> list[Scan]:
    volumes: list[Path] = []
    archives: list[Path] = []
    others: list[Path] = []
    results: list[Path] = []
    closed: list[Unreadable] = []

    def passed(place: Path, names: Sequence[str]) -> bool:
        if out is not None and place.resolve() == out:
            return True
        if place != root and HEADER in names:
            results.append(place)
            return True
        return False

    for file in files_below(root, passed, closed):
        if file.name.startswith("._"):  # what macOS leaves beside each file on other systems' disks
            kind = others
        elif file.name in _RESULTS:
            kind = results
        elif is_archive(file):
            kind = archives
        else:
            kind = volumes if file.name.lower().endswith(VOLUME_SUFFIXES) else others
        kind.append(file)
    if results:
        names = name_some([item.relative_to(root).as_posix() for item in results])
        note(f"{given}: earlier results in it left out: {names}")
    if not (volumes or others or archives or results or closed):
        raise InputError(f"{given}: the folder is empty; give a folder of DICOM files, or a volume file")
    found = _look_through(others)
    found.unreadable += closed
    scans = [_volume(given, root, file) for file in volumes]
    scans += _series(given, root, found, choice, whole=not volumes)
    if archives:
        names = name_some([file.name for file in archives])
        note(f"{given}: {counted(len(archives), 'zip archive')} in it not looked into ({names}); give it as an input")
    if not scans:
        _none(given, found)
    skipped = ", ".join(f"{count} {kind}" for kind, count in sorted(found.skipped.items()))
    if skipped and len(scans) > 1:
        note(f"{given}: left out what is no CT image: {skipped}")
    return scans


def _look_through(files: Sequence[Path]) -> DicomFolder:
    with quiet("pydicom"):
        found = scan_files(files, TAGS)
        add_missing(found)
    return found


def _none(given: Path, found: DicomFolder) -> list[Scan]:
    refuse_no_series(given, found)


def _volume(given: Path, root: Path, file: Path) -> Scan:
    inner = file.relative_to(root).as_posix()
    return Scan(given, _without_suffix(file.name), inner, inner, digest=_digest(root, volume_parts(file)))


def _series(given: Path, root: Path, found: DicomFolder, choice: Choice, whole: bool) -> list[Scan]:
    """A scan for each series, and one with a fault for each folder of damaged files that belong to none, or that cannot
    be opened.

    Args:
        given, root: The input, and the folder that holds its files.
        found: What the headers say.
        choice: What is asked for.
        whole: All that was found may belong to a series, if there is one alone.
    """
    scans = []
    claimed: set[Path] = set()
    whole = whole and not any(item.folder for item in found.unreadable)
    only = whole and len(found.series) == 1
    for uid, images in found.series.items():
        files, lost = [image.file for image in images], found.lost(root, images)
        claimed.update(item.file for item in lost)
        looked_at = {*files, *(item.file for item in lost if not item.folder)}
        faults = [item.fault for item in lost if item.folder]
        if only:
            looked_at.update(item.file for item in found.unreadable)
            looked_at.update(item.file for item in found.others)
            looked_at.update(found.passed)
        if uid in found.missing:  # the reader asks the DICOMDIR again
            looked_at = {*looked_at, *found.dicomdirs} - set(found.missing[uid])
        names = sorted(file.relative_to(root).as_posix() for file in looked_at)
        scans.append(
            Scan(
                given,
                scan_title(given),
                uid or str(own_path(given)),
                _common(root, files),
                tuple(names),
                uid or None,
                series_facts(uid, images, whole=not lost),
                fits(images, choice),
                _digest(root, looked_at),
                _renamed(faults[0], root, given) if faults else "",
            )
        )
    alone = whole and len(found.series) < 2  # then the whole input is refused, or its history tells of them
    return scans if alone else [*scans, *_of_no_series(given, root, found, claimed)]


def _of_no_series(given: Path, root: Path, found: DicomFolder, claimed: set[Path]) -> list[Scan]:
    """What may have been series, of which no image can be read, and folders that may hold one."""
    places: dict[Path, list[Unreadable]] = defaultdict(list)
    for item in found.orphans(root):
        if item.file not in claimed and not is_dicomdir(item.file):
            places[item.file.parent].append(item)
    scans = []
    for _, items in sorted(places.items()):
        inner = _common(root, [items[0].file])
        more = f", and {len(items) - 1} more such files" if len(items) > 1 else ""
        fault = f"{items[0].fault}{more}, and no image of its series can be read; copy it again"
        scans.append(Scan(given, scan_title(given), inner, inner, fault=_renamed(fault, root, given)))
    for item in found.unreadable:
        if item.folder and item.file not in claimed:
            inner = item.file.relative_to(root).as_posix()
            scans.append(Scan(given, scan_title(given), inner, inner, fault=_renamed(item.fault, root, given)))
    return scans


def _named(given: Path, scans: list[Scan]) -> list[Scan]:
    """The only scan of an input is called as that is."""
    return [replace(scans[0], title=scan_title(given), key=str(own_path(given)))] if len(scans) == 1 else scans


def _common(root: Path, files: Sequence[Path]) -> str:
    inner = Path(os.path.commonpath([file.parent for file in files])).relative_to(root).as_posix()
    return "" if inner == "." else inner


def _without_suffix(name: str) -> str:
    endings = [suffix for suffix in (*VOLUME_SUFFIXES, ".zip") if name.lower().endswith(suffix)]
    return name[: -len(endings[0])] if endings else name


def _renamed(error: InputError | str, root: Path, given: Path) -> str:
    """A message that names the input in place of the folder that it was unpacked into."""
    return str(error) if root in (given, given.parent) else str(error).replace(str(root), str(given))


def _digest(root: Path, files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(os.fsencode(file.relative_to(root)) + b"\0")
        if not file.is_file():  # opening a pipe would wait for whoever writes it
            continue
        try:
            with file.open("rb", buffering=0) as stream:
                size = os.fstat(stream.fileno()).st_size
                digest.update(f"{size}\0".encode())
                for place in _sampled(size):
                    stream.seek(place)
                    digest.update(stream.read(_SAMPLE))
        except OSError:  # whoever reads the scan says why
            continue
    return digest.hexdigest()[:16]


def _sampled(size: int) -> Iterable[int]:
    """Places of a file of so many bytes at which it is sampled: its ends, and evenly between them.

    Another scan of the same size differs at each of them, as good as surely; gzip's last bytes sum up all others.
    """
    last = max(size - _SAMPLE, 0)
    count = max(size >> 17, 3) if last else 1  # several in each slice of 512 x 512
    return [last * n // max(count - 1, 1) for n in range(count)]
