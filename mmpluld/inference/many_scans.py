"""Detection in the scans of some inputs, one or many, in one process or several: what ``mmpluld detect`` calls."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mmpluld.compat.allocator import tune_allocator
from mmpluld.errors import BusyError, InputError, NoMemoryError, NoRoomError, counted, printable
from mmpluld.inference.detector import Detector
from mmpluld.inference.findings import Findings
from mmpluld.inference.formats import DEFAULT_FORMATS, FORMATS, output_names
from mmpluld.inference.output import check_free, output_folder
from mmpluld.inference.scan_store import RESERVED, SUMMARY, Row, ScanStore
from mmpluld.inference.sharing import Processes
from mmpluld.io.hounsfield import Units
from mmpluld.io.scan_choice import choose_scans, place_digest, result_names
from mmpluld.io.scans import Scan, ScanReader, find_scans
from mmpluld.outputs import folder_lock
from mmpluld.progress import note
from mmpluld.structures import CTVolume
from mmpluld.typing import StrPath

__all__ = ["Request", "detect_inputs"]

_FOLDERS = re.compile(r"(?<![\w/])/?(?:[^\s:;,()'\"/]+/)+")
_UID = re.compile(r"\b\d+(\.\d+){4,}\b")
# Attributes that tell who it is, and what a message says of them: a ";" in quotes is part of a value, and other values
# may be listed after it.
_WHOSE = re.compile(
    r"\b(\w*Patient\w+|Accession\w+|\w*Physician\w*|StudyID|StudyInstanceUID|FrameOfReferenceUID)"
    r"""(?: is|:|=| (?=['"]))(?:'[^']*'|"[^"]*"|[^;]|;(?= there are ))*"""
)
_QUOTED = re.compile(r"""(['"])(?:(?!\1).)*/((?:(?!\1)[^/])*)\1""")
_BEHIND = re.compile(r"( is a link) to .*?(?=, which)")
_OPTION = re.compile(r"--series (?:'[^']*'|\S+)")


@dataclass(frozen=True)
class Request:
    """What is to be examined, and what is to be written.

    Attributes:
        inputs: Files and folders, see :func:`~mmpluld.io.scans.find_scans`.
        out: Folder of the result of one scan; of many, of a folder each and a table.
        series: See :func:`~mmpluld.io.scan_choice.choose_scans`.
        units: See :func:`~mmpluld.io.read_volume`.
        formats: Names of :data:`~mmpluld.inference.formats.FORMATS`.
        identifiers: See :meth:`~mmpluld.inference.Findings.save`; also names results after paths.
        overwrite: Replace earlier results.
        launcher: none | pytorch | slurm | mpi, what shares many scans out among processes.
        local_rank: Rank on this machine, as the launchers pass it.
    """

    inputs: Sequence[StrPath]
    out: StrPath
    series: str | None = None
    units: Units | None = None
    formats: Sequence[str] = DEFAULT_FORMATS
    identifiers: bool = False
    overwrite: bool = False
    launcher: str = "none"
    local_rank: int = 0


def detect_inputs(detector: Callable[[], Detector], request: Request, say: Callable[[str], None] = print) -> int:
    """Detect in all scans of the inputs; returns the exit status: 2 if a scan was refused, 1 if one failed.

    One scan of one input has ``out`` as its result folder, unless that is a folder of many. The result of a scan that
    is whole is kept, so that a call that was cut off is repeated. While the network examines a scan the next is read,
    so two are in memory.

    Args:
        detector: Makes the detector, when the output is known to be free.
        request: What to do.
        say: Prints a line on what was done.

    Raises:
        InputError: No scan can be examined, or the output may not be written.
    """
    tell = _in_one_line(say)
    store = ScanStore(request.out)
    if not store.exists():
        check_free(request.out, output_names(), request.overwrite)
    processes = Processes.started(request.launcher, request.local_rank)
    tune_allocator()
    made = detector()
    with ScanReader() as reader:
        scans = processes.told_by_first(
            lambda: choose_scans(find_scans(request.inputs, reader, request.series, request.out), request.series)
        )
        if len(scans) == len(request.inputs) == 1 and request.launcher == "none" and not store.exists():
            return _detect_one(made, scans[0], reader, request, tell)
        if all(scan.fault for scan in scans):
            more = f" (and {len(scans) - 1} more inputs are refused)" if len(scans) > 1 else ""
            raise InputError(f"{scans[0].fault}{more}")
        return _Many(made, reader, request, store, scans, tell).run(processes)


def _detect_one(
    detector: Detector, scan: Scan, reader: ScanReader, request: Request, say: Callable[[str], None]
) -> int:
    with output_folder(request.out, output_names(), request.overwrite) as folder:
        found = detector.examine(reader.read(scan, request.units), printable(scan.title), request.formats)
        names = found.write(folder, request.formats, request.identifiers)
    report = FORMATS["html"].file
    what, file = ("report: ", report) if report in names else ("", names[0] if names else "")
    say(f"{counted(len(found), 'finding')}{_why_none(found)}; {what}{printable(str(Path(request.out, file)))}")
    return 0


def _why_none(found: Findings) -> str:
    """The next step of who expected findings."""
    if len(found):
        return ""
    return (
        f" scored {found.details['Score threshold']} or more; a lower --score-thr shows what the model is less sure of"
    )


class _Many:
    """Detection in many scans."""

    def __init__(
        self,
        detector: Detector,
        reader: ScanReader,
        request: Request,
        store: ScanStore,
        scans: Sequence[Scan],
        say: Callable[[str], None],
    ) -> None:
        self.detector, self.reader, self.request, self.store, self.say = detector, reader, request, store, say
        self.given = scans
        self.scans: dict[str, Scan] = {}  # by the name of its result
        self.status: list[str] = []
        self.busy: set[str] = set()

    def run(self, processes: Processes) -> int:
        """Examine what is missing, this process's share of it."""
        settings = self._settings()
        first = processes.rank == 0
        with folder_lock(self.request.out) if first else nullcontext():
            processes.check_same(settings)
            names = processes.told_by_first(self._names)
            self.scans = dict(zip(names, self.given, strict=True))
            lacking = processes.told_by_first(lambda: self._lacking(settings))
            processes.part()
            mine = lacking[processes.rank :: processes.count]
            if first and len(lacking) < len(self.scans):
                self.say(f"{len(self.scans) - len(lacking)} of {counted(len(self.scans), 'scan')} done before")
            for number, (name, volume) in enumerate(self._volumes(mine), 1):
                place = printable(str(self.scans[name].place))
                self.say(f"[{number}/{len(mine)}] {name} ({place}): {self._examine(name, volume)}")
                del volume
        self._tell_all()
        return 1 if self.busy or "failed" in self.status else 2 if "refused" in self.status else 0

    def _names(self) -> list[str]:
        """Names of the results of all scans; asked of the first process alone."""
        wanted = result_names(self.given, RESERVED, self.request.identifiers)
        names = self.store.names(wanted, self.given)
        for name, other, scan in zip(names, wanted, self.given, strict=True):
            if name == f"{other}-{place_digest(scan)[:8]}":
                note(f"{printable(str(scan.place))}: its result is {name}, since {other} is that of another scan")
        return names

    def _settings(self) -> dict[str, object]:
        """All that decides what the results are."""
        request = self.request
        # In one order: the same formats in another are no other results.
        formats = [name for name in FORMATS if name in request.formats]
        told = {"formats": formats, "identifiers": request.identifiers, "units": request.units}
        return {**self.detector.settings, **told}

    def _lacking(self, settings: dict[str, object]) -> list[str]:
        """Names of the scans without a whole result; asked of the first process alone."""
        request = self.request
        if not self.store.exists():
            beside = [name for name in output_names() if (self.store.folder / name).exists()]
            if beside:  # which nobody could tell from results of this call
                raise InputError(
                    f"{request.out}: holds {beside[0]} of one scan, beside which those of many would lie; give another "
                    "folder, or remove it"
                )
        self.store.open(settings, self.scans.keys(), request.overwrite)
        rows = self.store.rows()
        files = [FORMATS[name].file for name in FORMATS if name in request.formats]
        lacking = [name for name, scan in self.scans.items() if not self.store.is_done(name, scan.digest, files, rows)]
        if lacking:
            self.store.begin({name: place_digest(self.scans[name]) for name in lacking})
        return lacking

    def _volumes(self, names: Sequence[str]) -> Iterator[tuple[str, CTVolume | Exception]]:
        """Each scan, or why it cannot be read; the next one is read meanwhile, in a thread.

        What fails in the thread may do so for want of the memory that the other scan takes, so it is tried again;
        bad input is not.
        """
        with ThreadPoolExecutor(1, "reading") as pool:
            reading: Future[CTVolume] | None = None
            for number, name in enumerate(names):
                volume = self._outcome(name, reading)
                reading = pool.submit(self._read, names[number + 1]) if number + 1 < len(names) else None
                yield name, volume
                del volume

    def _outcome(self, name: str, reading: Future[CTVolume] | None) -> CTVolume | Exception:
        try:
            if reading is not None:
                return reading.result()
        except Exception as error:
            if isinstance(error, InputError) and not isinstance(error, NoMemoryError):
                return error
        try:
            return self._read(name)
        except Exception as error:
            return error

    def _read(self, name: str) -> CTVolume:
        return self.reader.read(self.scans[name], self.request.units)

    def _examine(self, name: str, volume: CTVolume | Exception) -> str:
        """Detect, write and record; returns what to say of it."""
        scan, request = self.scans[name], self.request
        earlier = self.store.rows().get(name)
        ours = earlier is not None and earlier.may_be_replaced
        try:
            if isinstance(volume, Exception):
                raise volume
            with output_folder(self.store.folder / name, output_names(), request.overwrite or ours) as folder:
                self.store.record(_row(name, scan, "begun", result="earlier"))  # ours from now on
                found = self.detector.examine(volume, name, request.formats, scan.place)
                found.write(folder, request.formats, request.identifiers)
        except NoRoomError:  # which no other scan will have either
            raise
        except BusyError as error:
            self.busy.add(name)  # it is for the other process to record what became of it
            return f"left out: {error}"
        except Exception as error:
            return self._record_error(name, scan, error)
        best = f"{max(item.score for item in found):.4f}" if len(found) else ""
        self.store.record(_row(name, scan, "done", findings=str(len(found)), best_score=best, result="whole"))
        self.status.append("done")
        changed = earlier is not None and ours and earlier.input_digest not in ("", scan.digest)
        return counted(len(found), "finding") + ("; the scan has changed since its earlier result" if changed else "")

    def _record_error(self, name: str, scan: Scan, error: Exception) -> str:
        status = "refused" if isinstance(error, InputError) else "failed"
        reason = str(error) if status == "refused" else f"{type(error).__name__}: {error}"
        reason = _told(reason)
        if status == "failed" and os.environ.get("MMPLULD_DEBUG") == "1":
            traceback.print_exception(error)
        message = reason if self.request.identifiers else _public(reason, scan, name)
        row = self.store.rows().get(name)
        ours = row is not None and row.may_be_replaced and (self.store.folder / name).is_dir()
        result = "earlier" if ours else ""
        self.store.record(_row(name, scan, status, message=message, result=result))
        self.status.append(status)
        return f"{status}: {reason}{'; its earlier result is kept' if ours else ''}"

    def _tell_all(self) -> None:
        rows = self.store.rows()
        known = [rows[name].status if name in rows and name not in self.busy else "begun" for name in self.scans]
        counts = [f"{known.count('done')} of {counted(len(known), 'scan')} done"]
        counts += [f"{known.count(status)} {status}" for status in ("refused", "failed") if status in known]
        if "begun" in known:
            counts.append(f"{known.count('begun')} left to other processes")
        all_of_them = [] if self.busy else self.store.collect(self.scans.keys(), self.request.formats)
        beside = f"; beside it all findings: {', '.join(path.name for path in all_of_them)}" if all_of_them else ""
        self.say(f"{', '.join(counts)}; summary: {printable(str(self.store.folder / SUMMARY))}{beside}")


def _in_one_line(say: Callable[[str], None]) -> Callable[[str], None]:
    """Names of files can hold line ends."""
    return lambda text: say(" ".join(text.splitlines()))


def _row(name: str, scan: Scan, status: str, **told: str) -> Row:
    return Row(name, status, **told, input_digest=scan.digest, place_digest=place_digest(scan))


def _public(reason: str, scan: Scan, name: str) -> str:
    """A message without paths, UIDs and what else tells whose scan it is; of files the last name is kept."""
    reason = _BEHIND.sub(r"\1", reason)
    # By their names as they are, for a folder "Doe, Jane (3)" ends where no pattern can tell.
    folders = "|".join(re.escape(_told(f"{folder}/")) for folder in _folders(scan))
    if folders:
        reason = re.sub(rf"(?<![\w-])(?:{folders})", "", reason)
    # As a whole word: an input may be called "ct", which is part of many words.
    root = rf"(?<![\w./-]){re.escape(_told(str(scan.given)))}(?![\w-])"
    reason = re.sub(rf"^{root}/[^:]*/|{root}/(?:[^:;,()]*/)?", "", reason)
    reason = re.sub(root, name, reason).replace(_told(f"{scan.given.parent}/"), "")
    reason = _FOLDERS.sub("", _QUOTED.sub(r"\1\2\1", reason))
    reason = f"{name}{reason}" if reason.startswith(":") else reason
    return _UID.sub("UID", _WHOSE.sub(r"\1", _OPTION.sub("--series", reason)))


def _folders(scan: Scan) -> list[str]:
    """The folders of a scan's files below its input, the longest first."""
    files = map(PurePosixPath, (*scan.files, f"{scan.inner}/file"))
    found = {str(folder) for file in files for folder in file.parents}
    return sorted(found - {".", "/"}, key=len, reverse=True)


def _told(text: str) -> str:
    """As messages have it."""
    return " ".join(printable(text).split())
