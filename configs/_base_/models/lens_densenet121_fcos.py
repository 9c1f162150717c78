# The LENS detector with FCOS for proposals: one level takes lesions of all sizes, the proposal's score is that of the
# class times the center-ness. The paper names the head and nothing of it; settings are mmdet's.
_base_ = "lens_densenet121_afp.py"

model = dict(
    rpn_head=dict(
        _delete_=True,
        type="IgnoreAwareFCOSHead",
        in_channels=512,
        stacked_convs=4,
        feat_channels=256,
        strides=[4],
        regress_ranges=((-1, 1e8),),
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="IoULoss", loss_weight=1.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
)
twin_model = dict(model=dict(rpn_head=dict(_delete_=True, in_channels=64, feat_channels=64, stacked_convs=2)))
