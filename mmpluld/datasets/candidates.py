"""The dataset of false-positive reduction: 3D proposals that are lesions or are none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.dataset import BaseDataset, force_full_init

from mmpluld.datasets.steps import pipeline_steps
from mmpluld.errors import InputError
from mmpluld.io.slice_sources import source_path
from mmpluld.registry import DATASETS
from mmpluld.structures.candidates import CandidateSet

__all__ = ["CandidateDataset"]


@DATASETS.register_module()
class CandidateDataset(BaseDataset):
    """Candidates of one file that ``mmpluld harvest`` wrote, each a sample.

    With :class:`~mmpluld.datasets.samplers.LesionSampler` and ``positive_ratio=0.5`` an epoch has every lesion's
    candidates once and twice as many false positives, drawn anew each time, as LENS does (sec. VI-B).

    Keys of a sample: ``volume_id``, ``source`` (kind and absolute path), ``first_slice``, ``num_slices``,
    ``spacing_mm`` (z, y, x), ``box`` (x1, y1, z1, x2, y2, z2 voxel edges, z in slice numbers), ``score`` (the
    detector's), ``label`` (1 lesion, 0 false positive), ``sample_idx``.

    Args:
        ann_file: File of candidates, absolute or relative to ``data_root``.
        data_root: Folder of the data; the volumes' paths start from it, or from its sub-folder
            ``data_prefix=dict(img_path="SUBFOLDER")``.
        pipeline: Transforms, by name or as a list, see :func:`~mmpluld.datasets.steps.pipeline_steps`.
        **kwargs: Further arguments of mmengine's BaseDataset.

    Raises:
        InputError: The file is missing or faulty, has no candidate, or one in a volume of unknown voxel size.
    """

    METAINFO = {"classes": ("lesion",)}

    def __init__(
        self,
        ann_file: str,
        data_root: str = "",
        pipeline: Mapping[str, Any] | Sequence[dict[str, Any] | Callable[..., Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(ann_file=ann_file, data_root=data_root, pipeline=pipeline_steps(pipeline), **kwargs)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the file; samples are in its order."""
        if not Path(self.ann_file).is_file():
            raise InputError(
                f"{self.ann_file}: no such file of candidates; write it with `mmpluld harvest ANN PROPOSALS --out "
                f"{self.ann_file}`"
            )
        found = CandidateSet.load(self.ann_file)
        if not found.candidates:
            raise InputError(f"{self.ann_file}: no candidates; harvest from stores with proposals")
        self._metainfo["dataset"] = found.dataset
        volumes = {volume.id: volume for volume in found.volumes}
        root = Path(self.data_prefix.get("img_path") or self.data_root)
        samples = []
        for item in found.candidates:
            volume = volumes[item.volume]
            if not all(size > 0 for size in volume.spacing_mm):  # also where it is NaN
                raise InputError(
                    f"{self.ann_file}: voxels of volume '{volume.id}' are {list(volume.spacing_mm)} mm; patches need "
                    "sizes above 0, mend spacing_mm in the annotation file and harvest anew"
                )
            samples.append(
                {
                    "volume_id": volume.id,
                    "source": volume.source | {"path": str(source_path(volume, root).absolute())},
                    "first_slice": volume.first_slice,
                    "num_slices": volume.num_slices,
                    "spacing_mm": tuple(volume.spacing_mm),
                    "box": item.box,
                    "score": item.score,
                    "label": int(item.lesion is not None),
                }
            )
        return samples

    @force_full_init
    def sample_groups(self) -> tuple[dict[int, list[int]], list[int]]:
        """Indices of the candidates that are lesions, each as a group of its own, and of the false positives."""
        labels = [self.get_data_info(index)["label"] for index in range(len(self))]
        lesions = [index for index, label in enumerate(labels) if label]
        return {index: [index] for index in lesions}, [index for index, label in enumerate(labels) if not label]
