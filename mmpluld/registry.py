"""Child registries of MMDetection's; a name not found here is looked up in mmdet, then in mmengine.

Importing this module makes mmdet importable where mmcv has no compiled operators (see ``mmpluld.compat``).
"""

from mmpluld.compat import install_ops

install_ops()

from mmdet import registry as mmdet_registry  # noqa: E402  the stand-ins must be in place first
from mmengine.registry import Registry  # noqa: E402

__all__ = ["DATASETS", "DATA_SAMPLERS", "HOOKS", "METRICS", "MODELS", "TASK_UTILS", "TRANSFORMS"]

DATASETS = Registry(
    "dataset", parent=mmdet_registry.DATASETS, scope="mmpluld", locations=["mmpluld.datasets"]
)
DATA_SAMPLERS = Registry(
    "data sampler",
    parent=mmdet_registry.DATA_SAMPLERS,
    scope="mmpluld",
    locations=["mmpluld.datasets.samplers"],
)
TRANSFORMS = Registry(
    "transform",
    parent=mmdet_registry.TRANSFORMS,
    scope="mmpluld",
    locations=["mmpluld.datasets.transforms"],
)
MODELS = Registry(
    "model", parent=mmdet_registry.MODELS, scope="mmpluld", locations=["mmpluld.models"]
)
TASK_UTILS = Registry(
    "task util", parent=mmdet_registry.TASK_UTILS, scope="mmpluld", locations=["mmpluld.models"]
)
METRICS = Registry(
    "metric",
    parent=mmdet_registry.METRICS,
    scope="mmpluld",
    locations=["mmpluld.evaluation.metrics"],
)
HOOKS = Registry("hook", parent=mmdet_registry.HOOKS, scope="mmpluld", locations=["mmpluld.engine"])
