# TSM baseline of the published A3D code, which has 3 slices; no numbers were published with it.
_base_ = [
    "../_base_/models/tsm_densenet121-fpn.py",
    "../_base_/datasets/deeplesion_7s.py",
    "../_base_/schedules/sgd_20e.py",
    "../_base_/default_runtime.py",
]
