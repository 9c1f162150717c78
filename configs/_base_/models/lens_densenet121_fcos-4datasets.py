# LENS on four datasets as lens_densenet121_afp-4datasets.py, with FCOS for proposals: row "FCOS, 2 stages" of Table
# III, row (d) of Table II.
_base_ = "lens_densenet121_fcos.py"

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
