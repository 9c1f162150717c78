# LENS on DeepLesion alone, with its anchor-free proposal network.
_base_ = [
    "../_base_/models/lens_densenet121_afp.py",
    "../_base_/datasets/deeplesion_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
