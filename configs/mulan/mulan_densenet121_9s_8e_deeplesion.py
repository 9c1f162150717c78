# MULAN on DeepLesion, as published, without further inputs of the refining layer.
_base_ = [
    "../_base_/models/mulan_densenet121.py",
    "../_base_/datasets/deeplesion_9s_tags.py",
    "../_base_/schedules/mulan_8e.py",
    "../_base_/default_runtime.py",
]
