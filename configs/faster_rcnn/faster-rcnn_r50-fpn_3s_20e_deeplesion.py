# Partial-label paper, Table 1, row "Faster R-CNN".
# Sensitivity at 0.5, 1, 2, 4, 8, 16 FPs per image: 56.83 / 67.66 / 73.92 / 82.15 / 90.23 / 92.26 (paper).
_base_ = [
    "../_base_/models/faster-rcnn_r50-fpn.py",
    "../_base_/datasets/deeplesion_3s.py",
    "../_base_/schedules/sgd_20e.py",
    "../_base_/default_runtime.py",
]
