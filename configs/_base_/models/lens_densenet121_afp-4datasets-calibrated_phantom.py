# Phantom twin of lens_densenet121_afp-4datasets-calibrated.py.
_base_ = "lens_densenet121_afp-4datasets_phantom.py"

model = dict(test_cfg=dict(rcnn=dict(calibrated=True)))
