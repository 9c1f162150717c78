# Partial-label paper, Figure 4 at lambda 0.3, read as a sweep without the mask. Control for its Table 2, not in it:
# mask and factor together weaken negatives on average by 0.6 * 0.5; this row does so without the mask's noise.
_base_ = "pluld-a3d_densenet121-fpn_7s_20e_deeplesion.py"

model = dict(rpn_head=dict(loss_cls=dict(neg_weight=0.3, keep_prob=1.0)))
