# Phantom twin of lens-afp_densenet121_4datasets-no-fusion_9s_8e_deeplesion.py.
_base_ = "lens-afp_densenet121_4datasets_9s_phantom.py"

model = dict(test_cfg=dict(rcnn=dict(experts=["deeplesion"])))
