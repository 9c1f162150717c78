"""Files of a DICOM folder: which are CT images, which are none, and which cannot be read."""

from __future__ import annotations

import os
import re
import struct
import sys
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from mmpluld.errors import InputError
from mmpluld.progress import track

__all__ = [
    "DICOMDIR", "DicomFolder", "DicomImage", "Unreadable", "files_below",
    "folders_below", "header_text", "open_dicom", "scan_files",
]  # fmt: skip

_CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"  # of enhanced and converted CT the beginning
_SCREENSHOT = "1.2.840.10008.5.1.4.1.1.7"  # secondary capture; of several frames the beginning
DICOMDIR = "1.2.840.10008.1.3.10"
"""Storage class of a DICOMDIR."""
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_SUFFIXES = {".dcm", ".dicom", ".dic", ".ima"}
# A deflated file is unpacked whole before its first tag is known; no CT slice comes near this.
_MOST_INFLATED = 256 << 20

# What says whether a file is a CT image, and of which series.
_TAGS = (
    "SOPClassUID", "Modality", "ImageType", "SeriesInstanceUID", "Rows", "Columns", "ImagePositionPatient",
    "ImageOrientationPatient", "SamplesPerPixel",
)  # fmt: skip


@dataclass(frozen=True)
class DicomImage:
    """One image file and the values of its header that are asked for, as :func:`header_text` gives them."""

    file: Path
    header: Mapping[str, str]
    modality: str = "CT"


@dataclass(frozen=True)
class Unreadable:
    """A file that may be a slice but cannot be read, or a folder that may hold some and cannot be opened.

    Attributes:
        file: The file, or the folder.
        reason: What is wrong with it, as the middle of a sentence; of a folder to its end.
        dicom: Whether it begins like DICOM.
        silent: Whether nothing of its content is known: it is empty, or cannot be opened.
        folder: Whether it is a folder.
    """

    file: Path
    reason: str
    dicom: bool = False
    silent: bool = False
    folder: bool = False

    @property
    def fault(self) -> str:
        """Where it is, and what is wrong with it."""
        return f"{self.file}{'/' if self.folder else ''}: {self.reason}"


@dataclass
class DicomFolder:
    """What :func:`scan_files` found.

    Attributes:
        series: CT images by SeriesInstanceUID.
        others: Images of other modalities.
        skipped: How many files of which kind were passed over.
        unreadable: Files that cannot be read; not counted in ``skipped``.
        missing: Files by SeriesInstanceUID that a DICOMDIR names and that are not there.
        dicomdirs: The DICOMDIRs among the files.
        passed: The files counted in ``skipped``.
    """

    series: dict[str, list[DicomImage]] = field(default_factory=lambda: defaultdict(list))
    others: list[DicomImage] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: list[Unreadable] = field(default_factory=list)
    missing: dict[str, list[Path]] = field(default_factory=dict)
    dicomdirs: list[Path] = field(default_factory=list)
    passed: list[Path] = field(default_factory=list)

    def lost(self, folder: Path, images: Sequence[DicomImage]) -> list[Unreadable]:
        """Return the files that are, or by place and name may be, slices beside ``images`` and cannot be read."""
        uid = header_text(images[0].header, "SeriesInstanceUID")
        named = [Unreadable(file, "is missing, though a DICOMDIR names it") for file in self.missing.get(uid, ())]
        foreign = [
            Unreadable(item.file, f"is of modality {item.modality}, but in the CT series {uid}")
            for item in self.others
            if uid and header_text(item.header, "SeriesInstanceUID") == uid
        ]
        return [*self._unreadable_beside(folder, images), *foreign, *named]

    def _unreadable_beside(self, folder: Path, images: Sequence[DicomImage]) -> list[Unreadable]:
        files = [image.file for image in images]
        places, suffixes = {file.parent for file in files}, {file.suffix.lower() for file in files}
        patterns = {_pattern(file, folder) for file in files}
        below, alike = Path(os.path.commonpath(places)), {_pattern(place, folder) for place in places}

        of_others = {image.file.parent for items in self.series.values() for image in items} - places
        spread = len(self.series) == 1 or len(places) > 1  # else a like name in another folder is another scan's

        def belongs(item: Unreadable) -> bool:
            if item.folder:  # amid the series, or like the folder of the only one
                return below in item.file.parents or (len(self.series) == 1 and _pattern(item.file, folder) in alike)
            if item.file.name.startswith("._"):  # what macOS leaves beside each file on other systems' disks
                return False
            suffix, place = item.file.suffix.lower(), item.file.parent
            named = suffix in _SUFFIXES or (item.silent and suffix in suffixes)
            if _pattern(item.file, folder) in patterns:
                return place in places or (spread and place not in of_others)
            return place in places and (item.dicom or named)

        return [item for item in self.unreadable if belongs(item)]

    def orphans(self, folder: Path) -> list[Unreadable]:
        """Return the files below ``folder`` that are, or by name may be, slices of whatever series; of a file that is
        empty or cannot be opened only the name tells.
        """
        patterns = {_pattern(image.file, folder) for images in self.series.values() for image in images}

        def may_be(item: Unreadable) -> bool:
            named = item.file.suffix.lower() in _SUFFIXES or _pattern(item.file, folder) in patterns
            return item.dicom or (item.silent and named and not item.file.name.startswith("._"))

        return [item for item in self.unreadable if not item.folder and may_be(item)]


def scan_files(files: Iterable[Path], tags: Iterable[str]) -> DicomFolder:
    """Read the headers of files.

    Args:
        files: The files, in the order in which they shall be found.
        tags: Keywords of what the headers shall hold.
    """
    found = DicomFolder()
    wanted = [*_TAGS, *tags]
    for file in track(list(files), "reading headers"):
        header = _read_header(file, wanted)
        if isinstance(header, Unreadable):
            found.unreadable.append(header)
        else:
            _sort_in(file, header, found)
    unnamed = found.series.get("", [])
    if unnamed and len(found.series) > 1:
        del found.series[""]
        found.unreadable += [Unreadable(image.file, "holds no SeriesInstanceUID", dicom=True) for image in unnamed]
    return found


def open_dicom(stream: BinaryIO, **options: Any) -> Any:
    """Read a dataset with pydicom, with or without preamble and File Meta Information.

    Raises:
        InputError: If a deflated file unpacks to more than any slice holds.
    """
    import pydicom

    head = stream.read(1024)
    stream.seek(0)
    if _DEFLATED in head and head[128:132] == b"DICM":
        _check_inflated(stream)
    return pydicom.dcmread(stream, force=head[128:132] != b"DICM", **options)


def header_text(header: Any, name: str) -> str:
    r"""Return a header's value as one line of text, several joined by "\\"; "" if it is missing or empty.

    A value that breaks the rules of its type, such as a decimal "1,5", comes as it is written.
    """
    try:
        value = header.get(name)
    except Exception:  # pydicom raises anything on values that it cannot convert
        raw = getattr(header.get_item(name, keep_deferred=True), "value", None)
        value = raw.decode("ascii", errors="replace") if isinstance(raw, bytes) else raw
    if value is None:
        return ""
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        text = str(value)
    else:
        text = "\\".join("" if item is None else str(item).strip() for item in value)
    text = text.strip(" \0")
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def files_below(
    folder: Path,
    passed: Callable[[Path, Sequence[str]], bool] | None = None,
    closed: list[Unreadable] | None = None,
) -> Iterator[Path]:
    """Yield all files below a folder, as :func:`folders_below` finds them, which tells of the arguments and errors."""
    for place, names in folders_below(folder, passed, closed):
        for name in names:
            yield place / name


def folders_below(
    folder: Path,
    passed: Callable[[Path, Sequence[str]], bool] | None = None,
    closed: list[Unreadable] | None = None,
) -> Iterator[tuple[Path, list[str]]]:
    """Yield a folder and all below it, with the names of their files; links are followed, each folder is entered once.

    Args:
        folder: The folder.
        passed: Says of a folder and the names of its files whether it is passed over.
        closed: Gets the subfolders that cannot be opened; None refuses them.

    Raises:
        InputError: If the folder cannot be opened, or a subfolder that ``closed`` does not take.
    """

    def refuse(error: OSError) -> None:
        reason = f"the folder cannot be opened ({error.strerror}); allow reading it, slices may be in it"
        item = Unreadable(Path(error.filename), reason, folder=True)
        if closed is None or item.file == folder:
            raise InputError(item.fault)
        closed.append(item)

    entered = set()
    for place, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        try:
            # Fails where only names can be read; a Path would drop the dot that makes it so.
            status = os.stat(os.path.join(place, os.curdir))  # noqa: PTH116, PTH118
        except OSError as error:
            refuse(error)
            folders.clear()
            continue
        if (status.st_dev, status.st_ino) in entered or (passed is not None and passed(Path(place), names)):
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders.sort()
        yield Path(place), sorted(names)


def _read_header(file: Path, tags: list[str]) -> Any:
    """Return the dataset, or why there is none."""
    dicom = False
    try:
        if not file.is_file():
            what = "is a link to nothing" if file.is_symlink() else "is no regular file"
            return Unreadable(file, what, silent=True)
        with file.open("rb") as stream:
            head = stream.read(132)
            if not head:
                return Unreadable(file, "is empty", silent=True)
            dicom = _begins_like_dicom(head)
            if not dicom:
                return Unreadable(file, "is not DICOM")
            stream.seek(0)
            header = open_dicom(stream, stop_before_pixels=True, specific_tags=list(tags))
            if _is_cut(header, stream):
                return Unreadable(file, "is cut off", dicom=True)
            return header
    except OSError as error:
        if not dicom:
            return Unreadable(file, f"cannot be opened ({error.strerror or error})", silent=True)
        return Unreadable(file, f"cannot be read as DICOM ({error})", dicom=True)
    except InputError as error:
        return Unreadable(file, str(error), dicom=True)
    except Exception as error:  # pydicom raises anything on damaged bytes
        reason = " ".join(str(error).split()) or type(error).__name__
        return Unreadable(file, f"cannot be read as DICOM ({reason})", dicom=True)


def _is_cut(header: Any, stream: BinaryIO) -> bool:
    """Whether the file ends within an element, which pydicom then takes for shorter, or for one to pass over."""
    if stream.tell() > os.fstat(stream.fileno()).st_size:
        return True
    lengths = ((element.value, getattr(element, "length", 0)) for element in header.values())
    return any(isinstance(value, bytes) and len(value) < length < 0xFFFFFFFF for value, length in lengths)


def _sort_in(file: Path, header: Any, found: DicomFolder) -> None:
    """Put one header where it belongs."""
    modality = header_text(header, "Modality").partition("\\")[0].strip().upper()
    storage = header_text(header, "SOPClassUID") or header_text(header.file_meta, "MediaStorageSOPClassUID")
    if not modality and storage.startswith(_CT_STORAGE):
        modality = "CT"
    elif not modality and storage != DICOMDIR:  # every other object has one
        found.unreadable.append(Unreadable(file, "holds no Modality", dicom=True))
        return
    if not modality:
        modality = "DICOMDIR"
        found.dicomdirs.append(file)
    if modality != "CT":
        _pass_over(file, modality, found)
        if all(name in header for name in ("Rows", "Columns", "ImagePositionPatient")):
            found.others.append(DicomImage(file, _values(header), modality))
    elif "LOCALIZER" in header_text(header, "ImageType").upper().split("\\"):
        _pass_over(file, "localizer", found)
    elif storage and not storage.startswith((_CT_STORAGE, _SCREENSHOT)) and "Rows" not in header:
        _pass_over(file, "CT object without image", found)  # what vendors keep beside the images: raw data, reports
    elif storage.startswith(_SCREENSHOT) and _is_picture(header):
        _pass_over(file, "screenshot", found)
    else:
        found.series[header_text(header, "SeriesInstanceUID")].append(DicomImage(file, _values(header)))


def _pass_over(file: Path, kind: str, found: DicomFolder) -> None:
    found.skipped[kind] += 1
    found.passed.append(file)


def _values(header: Any) -> dict[str, str]:
    """The values of a header as text: a tenth of the memory of pydicom's own, for folders of many scans."""
    from pydicom.datadict import keyword_for_tag

    names = (keyword_for_tag(tag) for tag in header.keys())  # noqa: SIM118  iterating decodes the values
    return {name: sys.intern(text) for name in names if name and (text := header_text(header, name))}


def _is_picture(header: Any) -> bool:
    """Whether a secondary capture is in colour or lies nowhere in the patient, as a dose report does."""
    placed = any(header_text(header, name) for name in ("ImagePositionPatient", "ImageOrientationPatient"))
    return not placed or header_text(header, "SamplesPerPixel") not in ("", "1")


def _begins_like_dicom(head: bytes) -> bool:
    """Whether the first bytes are a preamble, or the first data element of a file without one."""
    if head[128:132] == b"DICM" or head[:4] == b"DICM":
        return True
    if len(head) < 8:
        return False
    kind = head[4:6]
    for order in "<>":
        group, _, length = struct.unpack(f"{order}HHI", head[:8])
        if group in (0x0002, 0x0008) and ((kind.isalpha() and kind.isupper()) or (length % 2 == 0 and length <= 1024)):
            return True
    return False


def _check_inflated(stream: BinaryIO) -> None:
    """Refuse a deflated file that unpacks to more than any slice; leaves the stream at its begin."""
    from pydicom.filereader import read_file_meta_info

    meta = read_file_meta_info(stream.name)
    if meta.get("TransferSyntaxUID") != _DEFLATED.decode():
        return
    # Preamble and prefix, then the element that says how long the others of the group are.
    stream.seek(132 + 12 + int(meta.FileMetaInformationGroupLength))
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    size, packed = 0, stream.read(1 << 20)
    while packed and not inflater.eof:
        size += len(inflater.decompress(packed, 1 << 24))
        if size > _MOST_INFLATED:
            raise InputError(f"unpacks to more than {_MOST_INFLATED >> 20} MiB, no slice is that large")
        packed = inflater.unconsumed_tail or stream.read(1 << 20)
    stream.seek(0)


def _pattern(file: Path, folder: Path) -> str:
    """The name below ``folder`` with numbers left out: the same for all slices of one export."""
    return re.sub(r"[0-9]+", "#", file.relative_to(folder).as_posix())
