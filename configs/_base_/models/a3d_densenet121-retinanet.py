# RetinaNet on the A3D detector's map: the same backbone, the same single fused map at stride 4, the same anchors as its
# proposal network, so that what differs from the two-stage rows is the head and its loss. Lesions of all sizes share
# the map, as in the papers; the anchors, not levels, cover 16 to 192 px.
# Head and training: RetinaNet's own values (two subnets of four 256-channel convolutions, focal loss, IoU 0.5 / 0.4).
_base_ = "a3d_densenet121-fpn.py"

model = dict(
    _delete_=True,
    type="RetinaNet",
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    neck={{_base_.model.neck}},
    bbox_head=dict(
        type="RetinaHead",
        num_classes=1,
        in_channels=512,
        stacked_convs=4,
        feat_channels=256,
        anchor_generator={{_base_.model.rpn_head.anchor_generator}},
        bbox_coder={{_base_.model.rpn_head.bbox_coder}},
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox={{_base_.model.rpn_head.loss_bbox}},
    ),
    train_cfg=dict(
        assigner=dict(type="IgnoreAwareMaxIoUAssigner", pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0.0),
        sampler=dict(type="PseudoSampler"),  # every anchor counts; the focal loss balances them
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=5e-5, nms=dict(type="nms", iou_threshold=0.5), max_per_img=50
    ),
)

# The miniature is as narrow and shallow as that of A3D.
twin_model = dict(
    _delete_=True,
    model=dict(
        backbone={{_base_.twin_model.model.backbone}},
        neck={{_base_.twin_model.model.neck}},
        bbox_head=dict(
            in_channels=64,
            stacked_convs=2,
            feat_channels=64,
            anchor_generator={{_base_.twin_model.model.rpn_head.anchor_generator}},
        ),
    ),
)
