# Partial-label paper, Table 1, row "AlignShift".
# Sensitivity at 0.5, 1, 2, 4, 8, 16 FPs per image: 76.88 / 83.24 / 89.15 / 92.74 / 93.17 / 95.68 (paper).
_base_ = [
    "../_base_/models/alignshift_densenet121-fpn.py",
    "../_base_/datasets/deeplesion_7s_native.py",
    "../_base_/schedules/sgd_20e.py",
    "../_base_/default_runtime.py",
]
