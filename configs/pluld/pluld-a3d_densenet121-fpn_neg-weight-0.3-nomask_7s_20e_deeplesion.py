# Control for Table 2 of the partial-label paper, not in it: mask and factor together weaken negatives on average by
# 0.6 * 0.5. This row does so without the mask's noise.
_base_ = "pluld-a3d_densenet121-fpn_7s_20e_deeplesion.py"

model = dict(rpn_head=dict(loss_cls=dict(neg_weight=0.3, keep_prob=1.0)))
