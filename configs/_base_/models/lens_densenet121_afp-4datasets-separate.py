# Four whole LENS detectors, each trained on one dataset, whose detections are joined: row "separate models" of Table V.
_base_ = "lens_densenet121_afp.py"

__experts = ["deeplesion", "luna16", "lits", "nih-ln"]
model = dict(
    _delete_=True,
    type="PerDatasetDetector",
    datasets=__experts,
    detector={{_base_.model}},
    fusion=dict(type="nms", iou_threshold=0.5),  # ours
    max_per_img=50,
)
find_unused_parameters = True  # a batch comes from one dataset and uses the detector of that dataset alone
twin_model = dict(_delete_=True, model=dict(detector={{_base_.twin_model.model}}))
