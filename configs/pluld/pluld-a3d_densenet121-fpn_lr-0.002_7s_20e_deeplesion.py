# Partial-label paper, learning-rate study: 0.002, the one it keeps (with other drops: the paper variant).
# 0.02, which diverged there, is the default here.
_base_ = "pluld-a3d_densenet121-fpn_7s_20e_deeplesion.py"

optim_wrapper = dict(optimizer=dict(lr=0.002))
twin = dict(optim_wrapper=dict(optimizer=dict(lr=2e-4)))  # the miniature's own rate times 0.1
