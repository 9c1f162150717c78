# Control that the partial-label paper lacks: the assignment that its loss comes with, without the loss.
_base_ = "a3d_densenet121-fpn_7s_20e_deeplesion.py"

model = dict(train_cfg=dict(rpn=dict(assigner=dict(pos_iou_thr=0.5))))
