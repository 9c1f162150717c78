# Phantom twin of mulan_densenet121_detection-only_9s_8e_deeplesion.py.
_base_ = [
    "../_base_/models/lens_densenet121_rpn_phantom.py",
    "../_base_/datasets/phantom_9s.py",
    "../_base_/schedules/phantom.py",
    "../_base_/default_runtime.py",
]
