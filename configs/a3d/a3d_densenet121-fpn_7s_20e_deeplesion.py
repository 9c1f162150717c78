# Partial-label paper, Table 1, row "A3D".
# Sensitivity at 0.5, 1, 2, 4, 8, 16 FPs per image: 78.52 / 83.43 / 89.39 / 92.96 / 94.06 / 96.72 (paper).
_base_ = [
    "../_base_/models/a3d_densenet121-fpn.py",
    "../_base_/datasets/deeplesion_7s.py",
    "../_base_/schedules/sgd_20e.py",
    "../_base_/default_runtime.py",
]
