# Phantom twin of retinanet-a3d_densenet121-fpn_7s_20e_deeplesion.py.
_base_ = [
    "../_base_/models/a3d_densenet121-retinanet_phantom.py",
    "../_base_/datasets/phantom_7s.py",
    "../_base_/schedules/phantom.py",
    "../_base_/default_runtime.py",
]
