# What a detector needs to score like one trained with MMDetection 1.x: changes to its model, for configs of converted
# weights to put in (docs/how_to/released_weights.md). Boxes stay edges; task_modules/v1_geometry.py says why.
legacy_geometry = dict(
    rpn_head=dict(
        anchor_generator=dict(type="V1AnchorGenerator"),
        bbox_coder=dict(type="V1DeltaXYWHBBoxCoder"),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(type="V1RoIExtractor"),
        bbox_head=dict(bbox_coder=dict(type="V1DeltaXYWHBBoxCoder")),
        mask_roi_extractor=dict(type="V1RoIExtractor"),
    ),
    # Anchors have whole-numbered corners; half a pixel admits those that end on the last pixel and no others.
    train_cfg=dict(rpn=dict(allowed_border=0.5)),
    test_cfg=dict(rpn=dict(min_bbox_size=-1)),  # no proposal is dropped for its size
)
