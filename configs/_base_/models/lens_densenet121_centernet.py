# The LENS detector with CenterNet for proposals: peaks of a heat map, sizes and offsets learned at the centre cells.
# The paper names the head and nothing of it; settings are mmdet's.
_base_ = "lens_densenet121_afp.py"

model = dict(
    rpn_head=dict(
        _delete_=True,
        type="CenterNetProposalHead",
        in_channels=512,
        feat_channels=256,
        loss_center_heatmap=dict(type="GaussianFocalLoss", loss_weight=1.0),
        loss_wh=dict(type="L1Loss", loss_weight=0.1),
        loss_offset=dict(type="L1Loss", loss_weight=1.0),
    ),
)
twin_model = dict(model=dict(rpn_head=dict(_delete_=True, in_channels=64, feat_channels=64)))
