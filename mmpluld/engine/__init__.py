"""Running: config checks, safe checkpoints, resuming.

- A config: ``config`` finds and loads one, ``config_names`` sets values that many places share, ``option_values`` reads
  ``--cfg-options``, ``config_file`` writes one out. ``config_check`` looks it through before anything is built, with
  ``config_keys`` (keys of parts without a type) and ``config_values`` (kinds and ranges). ``nodes`` walks them.
- A run: ``run`` is what the commands call, with ``run_options`` for single options and ``refusals`` around it.
  ``runner`` trains: ``guard`` stops what diverges (``finite`` finds it), ``resume`` goes on, ``checkpoint`` reads and
  writes weights, ``hooks``, ``negatives``, ``pictures``, ``seen_patients`` and ``tag_statistics`` are hooks.
- ``browse`` draws samples, ``model_files`` fetches a model of the zoo, ``device`` names devices.

The modules are imported when a name of them is first asked for: to read a config takes no trainer.
"""

from typing import TYPE_CHECKING

from mmpluld import registry  # noqa: F401  the operator stand-ins must be in place before mmdet is imported
from mmpluld.lazy import lazy_names

if TYPE_CHECKING:
    from mmpluld.engine.checkpoint import load_checkpoint_safely, load_weights
    from mmpluld.engine.config import find_config, load_config
    from mmpluld.engine.config_check import check_config
    from mmpluld.engine.guard import NonFiniteGuard, TrainingDivergedError
    from mmpluld.engine.hooks import SafeCheckpointHook
    from mmpluld.engine.negatives import NegativesHook
    from mmpluld.engine.pictures import LesionVisualizationHook
    from mmpluld.engine.runner import TrainingRunner
    from mmpluld.engine.seen_patients import NumberedPatientsHook
    from mmpluld.engine.tag_statistics import TagStatisticsHook

__all__ = [
    "LesionVisualizationHook",
    "NegativesHook",
    "NonFiniteGuard",
    "SafeCheckpointHook",
    "NumberedPatientsHook",
    "TagStatisticsHook",
    "TrainingDivergedError",
    "TrainingRunner",
    "check_config",
    "find_config",
    "load_checkpoint_safely",
    "load_config",
    "load_weights",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "LesionVisualizationHook": "pictures",
        "NegativesHook": "negatives",
        "NonFiniteGuard": "guard",
        "SafeCheckpointHook": "hooks",
        "NumberedPatientsHook": "seen_patients",
        "TagStatisticsHook": "tag_statistics",
        "TrainingDivergedError": "guard",
        "TrainingRunner": "runner",
        "check_config": "config_check",
        "find_config": "config",
        "load_checkpoint_safely": "checkpoint",
        "load_config": "config",
        "load_weights": "checkpoint",
    },
)
