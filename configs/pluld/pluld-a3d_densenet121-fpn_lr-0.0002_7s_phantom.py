# Phantom twin of pluld-a3d_densenet121-fpn_lr-0.0002_7s_20e_deeplesion.py.
_base_ = "pluld-a3d_densenet121-fpn_7s_phantom.py"

# The twin's own rate times 0.01.
optim_wrapper = dict(optimizer=dict(lr=2e-5))
