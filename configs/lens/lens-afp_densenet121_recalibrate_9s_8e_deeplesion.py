# LENS on DeepLesion alone, both stages; negatives with a high score are taken for lesions. Not a row of the paper.
_base_ = "lens-afp_densenet121_9s_8e_deeplesion.py"

__doubtful = dict(_delete_=True, type="BackgroundRecalibrationLoss", warmup=0.25)
model = dict(
    rpn_head=dict(
        loss_cls=dict(
            **__doubtful,
            use_sigmoid=True,
            loss={{_base_.model.rpn_head.loss_cls}},
            threshold=0.4,  # its focal loss gives 0.4 where a quarter is marked
            limit=1.0,  # as many as marked ones; without a limit everything becomes a lesion
        )
    ),
    roi_head=dict(
        bbox_head=dict(loss_cls=dict(**__doubtful, loss={{_base_.model.roi_head.bbox_head.loss_cls}}, threshold=0.7))
    ),
)
twin_model = dict(
    model=dict(
        rpn_head=dict(
            loss_cls=dict(_delete_=True, loss={{_base_.twin_model.model.rpn_head.loss_cls}}),
        )
    )
)
