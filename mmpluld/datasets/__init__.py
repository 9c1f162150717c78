"""Datasets of CT slices with lesions: the dataset class, its transforms and samplers, and the converters.

Names are imported when they are first asked for: converting and checking data need neither mmdet nor torch.
"""

from typing import TYPE_CHECKING

from mmpluld.lazy import lazy_names

if TYPE_CHECKING:
    from mmpluld.datasets.candidates import CandidateDataset
    from mmpluld.datasets.ct_lesion import CTLesionDataset
    from mmpluld.datasets.named_concat import NamedConcatDataset
    from mmpluld.datasets.workers import seed_worker

__all__ = ["CTLesionDataset", "CandidateDataset", "NamedConcatDataset", "seed_worker"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CTLesionDataset": "ct_lesion",
        "CandidateDataset": "candidates",
        "NamedConcatDataset": "named_concat",
        "seed_worker": "workers",
    },
)
