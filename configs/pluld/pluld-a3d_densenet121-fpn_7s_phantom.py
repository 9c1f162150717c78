# Phantom twin of pluld-a3d_densenet121-fpn_7s_20e_deeplesion.py.
_base_ = ["../a3d/a3d_densenet121-fpn_7s_phantom.py", "../_base_/losses/partial_label.py"]

model = dict(
    rpn_head=dict(loss_cls=dict(_delete_=True, **_base_.partial_label_loss)),
    # The paper gives 0.7 in its method section and 0.5 in its settings; 0.5 with the loss, 0.7 without.
    train_cfg=dict(rpn=dict(assigner=dict(pos_iou_thr=0.5))),
)
