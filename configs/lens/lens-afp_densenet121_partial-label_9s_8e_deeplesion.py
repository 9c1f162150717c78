# LENS on DeepLesion alone with the partial-label loss in the proposal network. Not a row of the paper.
_base_ = "lens-afp_densenet121_9s_8e_deeplesion.py"

model = dict(
    rpn_head=dict(
        loss_cls=dict(
            _delete_=True,
            type="PartialLabelLoss",
            use_sigmoid=True,
            loss={{_base_.model.rpn_head.loss_cls}},
            neg_weight=0.6,
            keep_prob=0.5,
        )
    )
)
twin_model = dict(
    model=dict(
        rpn_head=dict(
            loss_cls=dict(_delete_=True, loss={{_base_.twin_model.model.rpn_head.loss_cls}}),
        )
    )
)
