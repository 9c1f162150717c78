# Partial-label paper, learning-rate study: 0.002, the one it keeps (with other drops: the recipe of the paper).
_base_ = "pluld-a3d_densenet121-fpn_lr-0.02_7s_20e_deeplesion.py"

optim_wrapper = dict(optimizer=dict(lr=0.002))
twin = dict(optim_wrapper=dict(optimizer=dict(lr=0.002)))
