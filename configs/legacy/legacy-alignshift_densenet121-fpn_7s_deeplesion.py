# Published AlignShift weights for 7 slices, after `mmpluld convert-checkpoint alignshift`; for testing and detection.
_base_ = [
    "../_base_/models/alignshift_densenet121-fpn.py",
    "../_base_/datasets/deeplesion_7s_native-peer.py",
    "../_base_/schedules/sgd_20e.py",
    "../_base_/default_runtime.py",
    "../_base_/legacy_geometry.py",
]

model = _base_.legacy_geometry
