# Phantom twin of pluld-a3d_densenet121-fpn_mask-only_7s_20e_deeplesion.py.
_base_ = "pluld-a3d_densenet121-fpn_7s_phantom.py"

model = dict(rpn_head=dict(loss_cls=dict(neg_weight=1.0)))
