# FCOS on the A3D detector's map: no anchors, the same backbone and the same single fused map at stride 4, so that what
# differs from the two-stage rows is the head and its loss. The points near a lesion's centre are its positives whatever
# its size, so one level takes lesions of all sizes.
# Head: FCOS with its later improvements (centre sampling, normalised distances, GIoU).
_base_ = "a3d_densenet121-fpn.py"

model = dict(
    _delete_=True,
    type="FCOS",
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    neck={{_base_.model.neck}},
    bbox_head=dict(
        type="FCOSHead",
        num_classes=1,
        in_channels=512,
        stacked_convs=4,
        feat_channels=256,
        strides=[4],
        regress_ranges=((-1, 1e8),),
        center_sampling=True,  # within 1.5 strides of the centre
        norm_on_bbox=True,
        centerness_on_reg=True,
        loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.25, loss_weight=1.0),
        loss_bbox=dict(type="GIoULoss", loss_weight=1.0),
        loss_centerness=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    ),
    # The stock head knows no ignored boxes: lesions marked as uncertain are background, as for the papers' authors.
    train_cfg=None,
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
        bbox_head=dict(in_channels=64, stacked_convs=2, feat_channels=64),
    ),
)
