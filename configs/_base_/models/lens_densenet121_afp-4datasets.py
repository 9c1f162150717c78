# LENS: one detector from four datasets that label different lesions. Backbone, neck and the two layers behind RoIAlign
# are shared; each dataset has its own anchor-free proposal head, class layer and box layer.
_base_ = "lens_densenet121_afp.py"

# A dataset more is a name more; it is the name in the annotation file.
__experts = ["deeplesion", "luna16", "lits", "nih-ln"]
model = dict(
    rpn_head=dict(_delete_=True, type="PerDatasetHead", datasets=__experts, head={{_base_.model.rpn_head}}),
    roi_head=dict(type="ExpertRoIHead", bbox_head=dict(type="ExpertBBoxHead", datasets=__experts)),
    # experts=["deeplesion"] asks that expert alone: Table II without proposal fusion. The threshold is ours.
    test_cfg=dict(rcnn=dict(fusion=dict(type="nms", iou_threshold=0.5))),
)
find_unused_parameters = True  # a batch comes from one dataset and uses the parts of that dataset alone
twin_model = dict(model=dict(rpn_head=dict(_delete_=True, head={{_base_.twin_model.model.rpn_head}})))
