# Control that the paper lacks: LENS on DeepLesion alone with as many steps as on four datasets.
_base_ = [
    "../_base_/models/lens_densenet121_afp.py",
    "../_base_/datasets/lens_deeplesion_9s.py",
    "../_base_/schedules/radam_9e.py",
    "../_base_/default_runtime.py",
]
