# Phantom twin of faster-rcnn_r50-fpn_3s_20e_deeplesion.py.
_base_ = [
    "../_base_/models/faster-rcnn_r50-fpn_phantom.py",
    "../_base_/datasets/phantom_3s.py",
    "../_base_/schedules/phantom.py",
    "../_base_/default_runtime.py",
]
