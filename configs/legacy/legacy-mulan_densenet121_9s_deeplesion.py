# Published MULAN weights, after `mmpluld convert-checkpoint mulan`; for testing and detection.
_base_ = [
    "../_base_/models/mulan_densenet121.py",
    "../_base_/datasets/deeplesion_9s_tags.py",
    "../_base_/schedules/mulan_8e.py",
    "../_base_/default_runtime.py",
]

# The published loader's blend of slices.
__pipeline = dict(load=dict(interp="peer"))
train_dataloader = dict(dataset=dict(pipeline=__pipeline))
val_dataloader = dict(dataset=dict(pipeline=__pipeline))
test_dataloader = dict(dataset=dict(pipeline=__pipeline))

# The geometry of maskrcnn-benchmark; task_modules/v1_geometry.py says why.
__coder = dict(type="V1DeltaXYWHBBoxCoder")
__regions = dict(type="InclusiveRoIExtractor", roi_layer=dict(aligned=False))
model = dict(
    rpn_head=dict(bbox_coder=__coder),
    roi_head=dict(
        bbox_roi_extractor=__regions,
        bbox_head=dict(bbox_coder=__coder),
        mask_roi_extractor=__regions,
        tag_roi_extractor=__regions,
    ),
    train_cfg=dict(rpn_proposal=dict(min_bbox_size=7.999)),
    # A side of exactly 8 pixels is kept there and not by mmdet.
    test_cfg=dict(rpn=dict(min_bbox_size=7.999), rcnn=dict(score_thr=0.05)),
)
