"""The same numbers faster on a CPU. Nobody needs to read this to understand a network.

A network is written plainly, in PyTorch's own operators. Where a CPU gains much from another order of the arithmetic,
one line above a method says so:

    @on_cpu(TRAIN_BLOCK)
    def forward(self, x, thickness_mm=None):
        ...  # the plain computation, which runs wherever the shortcut does not serve

``on_cpu`` hands the call to the shortcut if the tensors are on a CPU, shortcuts are on, and the shortcut's ``fits``
agrees; results equal those of the method up to rounding. The networks import this package, it imports none of them: the
shortcuts ask for the attributes that ``protocols`` lists.

The one switch: inside ``with plain_networks():`` no shortcut is taken; nor is one in a process that starts with the
environment variable ``MMPLULD_CPU_SHORTCUTS=0``.

=================  =====================================  ==========================================================
Shortcut           Method                                 Serves
=================  =====================================  ==========================================================
``STEM``           ``TruncatedDenseNet``, stem            always
``TRAIN_BLOCK``    ``DenseBlock.forward``                 gradients without autocast, batch norm by the batch
``INFER_STACKS``   ``TruncatedDenseNet``, all maps        evaluation without gradients, single precision or less
``INFER_BY_IMAGE`` ``LensDenseNet``, all maps             the same
``INFER_IMAGES``   ``LensDenseNet``, images alone         the same
``INFER_LAST``     ``LensDenseNet``, last block           the same
``PROJECT``        ``ImageTopDownFusion``, 1x1 products   no gradients
``BEST_CELLS``     ``AFPHead.predict``                    evaluation without gradients, one class, plain NMS
=================  =====================================  ==========================================================
"""

from mmpluld.models.cpu.best_cells import can_stop_early, propose_from_best_cells
from mmpluld.models.cpu.dense_training import can_train_fast, train_dense_block
from mmpluld.models.cpu.densenet import (
    can_infer_fast,
    infer_image_by_image,
    infer_images,
    infer_last_block,
    infer_stacks,
)
from mmpluld.models.cpu.image_fusion import can_project_images, project_images
from mmpluld.models.cpu.seam import Shortcut, on_cpu, plain_networks
from mmpluld.models.cpu.stem import run_stem

__all__ = [
    "BEST_CELLS",
    "INFER_BY_IMAGE",
    "INFER_IMAGES",
    "INFER_LAST",
    "INFER_STACKS",
    "PROJECT",
    "STEM",
    "TRAIN_BLOCK",
    "Shortcut",
    "on_cpu",
    "plain_networks",
]

STEM = Shortcut(run_stem, fits=lambda network, x: True)
TRAIN_BLOCK = Shortcut(train_dense_block, can_train_fast)
INFER_STACKS = Shortcut(infer_stacks, can_infer_fast)
INFER_BY_IMAGE = Shortcut(infer_image_by_image, can_infer_fast)
INFER_IMAGES = Shortcut(infer_images, can_infer_fast)
INFER_LAST = Shortcut(infer_last_block, can_infer_fast)
PROJECT = Shortcut(project_images, can_project_images)
BEST_CELLS = Shortcut(propose_from_best_cells, can_stop_early)
