"""Bundles: one file for a published model, which says all that detection needs and holds no code.

A bundle is a ZIP of stored members with fixed dates, in a fixed order, so that equal contents are equal bytes. Its
first member, ``bundle.json``, names the others with their sizes and SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpluld.errors import InputError, printable
from mmpluld.inputs import regular_file, why_unreadable
from mmpluld.structures.text_files import parse_json
from mmpluld.typing import StrPath

__all__ = ["CARD", "CONFIG", "FPR", "MEMBERS", "PICTURE", "POINTS", "WEIGHTS", "Bundle", "bundle_bytes", "is_bundle"]

CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
POINTS = "operating_points.json"
CARD = "card.md"
PICTURE = "reliability.png"
FPR = "fpr/"
"""Begins the names of config and weights of the false-positive reduction."""
MEMBERS = {
    CONFIG: 16 << 20,
    WEIGHTS: 4 << 30,
    POINTS: 16 << 20,
    CARD: 1 << 20,
    PICTURE: 8 << 20,
    FPR + CONFIG: 16 << 20,
    FPR + WEIGHTS: 4 << 30,
}
"""What a bundle can hold beside its index, in this order, and the most bytes of each."""

_INDEX = "bundle.json"
_INDEX_BYTES = 1 << 20
_SCHEMA = "mmpluld.bundle/1"
_NEEDED = (CONFIG, WEIGHTS, CARD)
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a ZIP can hold
_BEGIN = b"PK\x03\x04"
_WANTED = "a bundle that `mmpluld download` fetched or tools/publish_model.py wrote"


def bundle_bytes(name: str, provenance: Mapping[str, Any], members: Mapping[str, bytes]) -> bytes:
    """Lay a bundle out.

    Args:
        name: Of the model.
        provenance: How it came to be, as plain values.
        members: Content by name; names and the most bytes are those of :data:`MEMBERS`.

    Raises:
        InputError: A member is unknown, missing, or too large.
    """
    for member, content in members.items():
        if len(content) > MEMBERS.get(member, -1):
            raise InputError(f"{member} of {len(content)} bytes; no member of a bundle, or larger than it may be")
    for member in _NEEDED:
        if member not in members:
            raise InputError(f"a bundle without {member}; give it")
    listed = [member for member in MEMBERS if member in members]
    index = {
        "schema": _SCHEMA,
        "name": name,
        "members": {
            member: {"size": len(members[member]), "sha256": hashlib.sha256(members[member]).hexdigest()}
            for member in listed
        },
        "provenance": dict(provenance),
    }
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        text = json.dumps(index, indent=1, allow_nan=False).encode()
        for member, content in ((_INDEX, text), *((member, members[member]) for member in listed)):
            entry = zipfile.ZipInfo(member, _DATE)
            entry.create_system = 3  # as on Unix, wherever it is made
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    return buffer.getvalue()


def is_bundle(path: StrPath) -> bool:
    """Whether a file begins as a bundle does; False if there is none."""
    try:
        with Path(path).open("rb") as stream:
            head = stream.read(30 + len(_INDEX))
    except OSError:
        return False
    return head.startswith(_BEGIN) and head[30:] == _INDEX.encode()


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk, its index read and checked; members are checked when they are read.

    Attributes:
        path: The file.
        name: Of the model.
        provenance: How it came to be.
        members: Name -> (bytes, SHA-256).
    """

    path: Path
    name: str
    provenance: Mapping[str, Any]
    members: Mapping[str, tuple[int, str]]

    @classmethod
    def open(cls, path: StrPath) -> Bundle:
        """Read the index of a bundle.

        Raises:
            InputError: The file is missing or none, is of a later version, or its members are not those of the index.
        """
        file = regular_file(path, _WANTED)
        if not is_bundle(file):
            raise InputError(f"{path}: is no bundle; give {_WANTED}")
        try:
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                if entries[0].file_size > _INDEX_BYTES:
                    raise _damaged(path, f"its {_INDEX} has {entries[0].file_size} bytes")
                text = _stored(archive, entries[0], path).decode()
        except InputError:  # which is a ValueError too
            raise
        except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, IndexError) as error:
            raise _damaged(path, f"{error}") from error
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({why_unreadable(file, error)}); give {_WANTED}") from error
        index = parse_json(text, f"{path}, {_INDEX}", _WANTED)
        members = _checked_index(index, path)
        found = {entry.filename: entry.file_size for entry in entries[1:]}
        if len(found) != len(entries) - 1 or found != {name: size for name, (size, _) in members.items()}:
            raise _damaged(path, f"its members are not those that {_INDEX} lists")
        return cls(file, index["name"], index["provenance"], members)

    def read(self, member: str) -> bytes:
        """Content of a member.

        Raises:
            InputError: There is none of this name, or it is damaged.
        """
        if member not in self.members:
            raise InputError(f"{self.path}: holds no {member}; it holds {', '.join(self.members)}")
        size, sha256 = self.members[member]
        try:
            with zipfile.ZipFile(self.path) as archive:
                entry = archive.getinfo(member)
                content = _stored(archive, entry, self.path) if entry.file_size == size else b""
        except InputError:
            raise
        except (zipfile.BadZipFile, EOFError, ValueError, RuntimeError, KeyError, OSError) as error:
            raise _damaged(self.path, f"{member}: {error}") from error
        if hashlib.sha256(content).hexdigest() != sha256:
            raise _damaged(self.path, f"the SHA-256 of {member} is another than in {_INDEX}")
        return content

    def json(self, member: str) -> Any:
        """The values of a JSON member.

        Raises:
            InputError: As :meth:`read`, or it is no JSON.
        """
        place = f"{self.path}, {member}"
        try:
            return parse_json(self.read(member).decode(), place, _WANTED)
        except UnicodeDecodeError:
            raise InputError(f"{place}: is not UTF-8 text; give {_WANTED}") from None


def _stored(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: StrPath) -> bytes:
    """A member that is neither packed nor locked: its bytes in the file are as many as it says."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
        raise _damaged(path, f"{printable(entry.filename)} is packed or locked")
    return archive.read(entry)


def _checked_index(index: Any, path: StrPath) -> dict[str, tuple[int, str]]:
    """The members that an index lists.

    Raises:
        InputError: It is none, or of another version.
    """
    if not (isinstance(index, dict) and isinstance(index.get("schema"), str)):
        raise _damaged(path, f"{_INDEX} is no index of a bundle")
    if index["schema"] != _SCHEMA:
        raise InputError(
            f"{path}: is a bundle of the form {printable(index['schema'])}, read is {_SCHEMA}; install a newer "
            "version, or fetch the model again"
        )
    listed = index.get("members")
    if not (
        isinstance(index.get("name"), str)
        and re.fullmatch(r"[\w.-]+", index["name"], re.ASCII)
        and isinstance(index.get("provenance"), dict)
        and isinstance(listed, dict)
        and all(isinstance(item, dict) for item in listed.values())
    ):
        raise _damaged(path, f"{_INDEX} lacks name, provenance or members")
    members = {}
    for name, item in listed.items():
        size, sha256 = item.get("size"), item.get("sha256")
        if name not in MEMBERS or not isinstance(sha256, str):
            raise _damaged(path, f"{_INDEX} lists {printable(name)!r}; allowed are {', '.join(MEMBERS)}, with sha256")
        if not (isinstance(size, int) and 0 <= size <= MEMBERS[name]):
            raise _damaged(path, f"{name} has {printable(str(size))} bytes; allowed are {MEMBERS[name]}")
        members[name] = (size, sha256)
    if missing := [name for name in _NEEDED if name not in members]:
        raise _damaged(path, f"it lacks {missing[0]}")
    return members


def _damaged(path: StrPath, why: str) -> InputError:
    return InputError(f"{path}: is no whole bundle ({' '.join(why.split())}); fetch it again with `mmpluld download`")
