# LENS on four datasets whose experts' scores are calibrated before they are joined. Not in the paper.
# Train with lens_densenet121_afp-4datasets.py; `mmpluld calibrate` makes the weights that this one is tested with.
_base_ = "lens_densenet121_afp-4datasets.py"

model = dict(test_cfg=dict(rcnn=dict(calibrated=True)))
