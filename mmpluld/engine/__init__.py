"""Running: config checks, safe checkpoints, resuming."""

from mmpluld import registry  # noqa: F401  the operator stand-ins must be in place before mmdet is imported
from mmpluld.engine.checkpoint import load_checkpoint_safely, load_weights
from mmpluld.engine.config import find_config, load_config
from mmpluld.engine.config_check import check_config
from mmpluld.engine.guard import NonFiniteGuard, TrainingDivergedError
from mmpluld.engine.hooks import SafeCheckpointHook
from mmpluld.engine.pictures import LesionVisualizationHook
from mmpluld.engine.runner import TrainingRunner
from mmpluld.engine.tag_statistics import TagStatisticsHook

__all__ = [
    "LesionVisualizationHook",
    "NonFiniteGuard",
    "SafeCheckpointHook",
    "TagStatisticsHook",
    "TrainingDivergedError",
    "TrainingRunner",
    "check_config",
    "find_config",
    "load_checkpoint_safely",
    "load_config",
    "load_weights",
]
