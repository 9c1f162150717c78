# Partial-label paper, Figure 4 at lambda 0.1, with the mask.
_base_ = "pluld-a3d_densenet121-fpn_7s_20e_deeplesion.py"

model = dict(rpn_head=dict(loss_cls=dict(neg_weight=0.1)))
