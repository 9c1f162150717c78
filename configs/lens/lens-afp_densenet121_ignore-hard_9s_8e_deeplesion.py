# LENS on DeepLesion alone, both stages; negatives with a high score are left out. Not a row of the paper.
_base_ = "lens-afp_densenet121_9s_8e_deeplesion.py"

__doubtful = dict(_delete_=True, type="IgnoreHardNegatives", warmup=0.25)
model = dict(
    rpn_head=dict(
        loss_cls=dict(
            **__doubtful,
            use_sigmoid=True,
            loss={{_base_.model.rpn_head.loss_cls}},
            threshold=0.35,  # its focal loss gives 0.4 where a quarter is marked
        )
    ),
    roi_head=dict(
        bbox_head=dict(loss_cls=dict(**__doubtful, loss={{_base_.model.roi_head.bbox_head.loss_cls}}, threshold=0.5))
    ),
)
twin_model = dict(
    model=dict(
        rpn_head=dict(
            loss_cls=dict(_delete_=True, loss={{_base_.twin_model.model.rpn_head.loss_cls}}),
        )
    )
)
