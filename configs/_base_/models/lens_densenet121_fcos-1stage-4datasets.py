# FCOS heads of four datasets as the whole detector, without a second stage: row "FCOS, 1 stage" of Table III.
# Detections of all heads are joined by one more suppression.
_base_ = "lens_densenet121_fcos.py"

__experts = ["deeplesion", "luna16", "lits", "nih-ln"]
model = dict(
    _delete_=True,
    type="FCOS",
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    neck={{_base_.model.neck}},
    bbox_head=dict(type="PerDatasetHead", datasets=__experts, num_classes=1, head={{_base_.model.rpn_head}}),
    train_cfg=None,
    # As the second stage of the others.
    test_cfg=dict(
        nms_pre=1000, min_bbox_size=0, score_thr=5e-5, nms=dict(type="nms", iou_threshold=0.5), max_per_img=50
    ),
)
find_unused_parameters = True  # a batch comes from one dataset and uses the head of that dataset alone
twin_model = dict(
    _delete_=True,
    model=dict(
        backbone={{_base_.twin_model.model.backbone}},
        neck={{_base_.twin_model.model.neck}},
        bbox_head=dict(head={{_base_.twin_model.model.rpn_head}}),
    ),
)
