# RetinaNet on A3D with the partial-label loss on its focal loss; not a row of the paper.
_base_ = "../a3d/retinanet-a3d_densenet121-fpn_7s_20e_deeplesion.py"

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type="PartialLabelLoss",
            use_sigmoid=True,
            loss={{_base_.model.bbox_head.loss_cls}},
            neg_weight=0.6,
            keep_prob=0.5,
        )
    )
)
