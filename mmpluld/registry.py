"""Child registries of MMDetection's; a name not found here is looked up in mmdet, then in mmengine.

Importing this module makes mmdet importable where mmcv has no compiled operators (see ``mmpluld.compat``).
Every registry that a config can reach has a child here, so that ``default_scope = "mmpluld"`` finds them all.
MMEngine imports this module by itself when a config of another project says ``type="mmpluld.NAME"``.

MMEngine is also told where our configs lie: after this import ``_base_ = "mmpluld::pluld/NAME.py"`` and
``mmengine.hub.get_config("mmpluld::pluld/NAME.py")`` find them.
"""

import copy

from mmpluld.compat.ops import install_ops
from mmpluld.compat.versions import check_versions, silence_hosts

check_versions()
silence_hosts()
install_ops()

from mmdet import registry as parents  # noqa: E402  the stand-ins must be in place first
from mmengine.config import Config  # noqa: E402
from mmengine.config.utils import MODULE2PACKAGE  # noqa: E402
from mmengine.registry import Registry  # noqa: E402
from torch import nn  # noqa: E402

# MMEngine looks for `.mim` beside this module. By the package's name it would find a wheel, but no checkout: it takes
# the place of an editable install's metadata for that of the code.
MODULE2PACKAGE["mmpluld"] = __name__


def _child(name: str, *locations: str) -> Registry:
    """Return our child of mmdet's registry ``name``.

    On its first look-up it imports ``locations`` and, because MMEngine then does not ask the parent to, the parent's.
    """
    parent = getattr(parents, name)
    return Registry(parent.name, parent=parent, scope="mmpluld", locations=[*parent._locations, *locations])


DATASETS = _child(
    "DATASETS",
    "mmpluld.datasets.ct_lesion",
    "mmpluld.datasets.candidates",
    "mmpluld.datasets.named_concat",
    "mmpluld.datasets.workers",
)
DATA_SAMPLERS = _child("DATA_SAMPLERS", "mmpluld.datasets.samplers")
TRANSFORMS = _child("TRANSFORMS", "mmpluld.datasets.transforms")
MODELS = _child("MODELS", "mmpluld.models")
WEIGHT_INITIALIZERS = _child("WEIGHT_INITIALIZERS", "mmpluld.models")
TASK_UTILS = _child("TASK_UTILS", "mmpluld.models")
METRICS = _child("METRICS", "mmpluld.evaluation.metrics")
HOOKS = _child(
    "HOOKS",
    "mmpluld.engine.hooks",
    "mmpluld.engine.negatives",
    "mmpluld.engine.pictures",
    "mmpluld.engine.seen_patients",
    "mmpluld.engine.tag_statistics",
)
LOOPS = _child("LOOPS", "mmpluld.inference.loop")

EVALUATOR = _child("EVALUATOR")
LOG_PROCESSORS = _child("LOG_PROCESSORS")
MODEL_WRAPPERS = _child("MODEL_WRAPPERS")
OPTIMIZERS = _child("OPTIMIZERS")
OPTIM_WRAPPERS = _child("OPTIM_WRAPPERS")
OPTIM_WRAPPER_CONSTRUCTORS = _child("OPTIM_WRAPPER_CONSTRUCTORS")
PARAM_SCHEDULERS = _child("PARAM_SCHEDULERS")
RUNNERS = _child("RUNNERS")
RUNNER_CONSTRUCTORS = _child("RUNNER_CONSTRUCTORS")
VISBACKENDS = _child("VISBACKENDS")
VISUALIZERS = _child("VISUALIZERS")


def build_model(config: Config) -> nn.Module:
    """The network of a config, in the default scope that is set.

    The config stays as it is: mmdet's detectors write settings of training and test into those of their parts, and so a
    config would have another digest once its network was built.
    """
    model: nn.Module = MODELS.build(copy.deepcopy(config.model))
    return model
