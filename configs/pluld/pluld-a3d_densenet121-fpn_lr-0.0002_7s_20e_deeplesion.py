# Partial-label paper, learning-rate study: 0.0002, too slow there.
_base_ = "pluld-a3d_densenet121-fpn_lr-0.02_7s_20e_deeplesion.py"

optim_wrapper = dict(optimizer=dict(lr=0.0002))
twin = dict(optim_wrapper=dict(optimizer=dict(lr=0.0002)))
