# Phantom twin of pluld-fcos-a3d_densenet121-fpn_7s_20e_deeplesion.py.
_base_ = ["../a3d/fcos-a3d_densenet121-fpn_7s_phantom.py", "../_base_/losses/partial_label.py"]

model = dict(
    bbox_head=dict(loss_cls=dict(_base_.partial_label_loss, _delete_=True, loss=_base_.model.bbox_head.loss_cls))
)
