"""Names of the tags that lesions carry."""

from __future__ import annotations

from mmpluld.errors import InputError
from mmpluld.structures.text_files import read_json
from mmpluld.typing import StrPath

__all__ = ["read_tag_names"]


def read_tag_names(path: StrPath) -> list[str]:
    """Names of the tags, in their order.

    Args:
        path: LesaNet's JSON file of labels, or an annotation file of lesions with tags.

    Raises:
        InputError: The file is neither.
    """
    data = read_json(path, "a file with names of tags")
    header = data if isinstance(data, dict) else {}
    dataset = header.get("dataset")
    own = dataset.get("tags") if isinstance(dataset, dict) else None
    names = header.get("term_list") or (own.get("terms") if isinstance(own, dict) else None)
    if not names or not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{path}: has no names of tags; give text_mined_labels_171_and_split.json of LesaNet, or an annotation "
            "file that `mmpluld convert deeplesion --tags` has written"
        )
    return names
