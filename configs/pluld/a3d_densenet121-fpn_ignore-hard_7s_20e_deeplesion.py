# A3D, both stages; negatives with a high score are left out. Not a row of the paper.
_base_ = "../a3d/a3d_densenet121-fpn_7s_20e_deeplesion.py"

__doubtful = dict(_delete_=True, type="IgnoreHardNegatives", warmup=0.25)
model = dict(
    rpn_head=dict(
        loss_cls=dict(
            **__doubtful,
            use_sigmoid=True,
            loss={{_base_.model.rpn_head.loss_cls}},
            threshold=0.8,  # half of the sampled anchors are lesions, so scores are high
        )
    ),
    roi_head=dict(
        bbox_head=dict(loss_cls=dict(**__doubtful, loss={{_base_.model.roi_head.bbox_head.loss_cls}}, threshold=0.5))
    ),
)
