# Phantom twin of mulan_densenet121_9s_8e_deeplesion.py.
_base_ = [
    "../_base_/models/mulan_densenet121_phantom.py",
    "../_base_/datasets/phantom_9s_tags.py",
    "../_base_/schedules/phantom.py",
    "../_base_/default_runtime.py",
]
