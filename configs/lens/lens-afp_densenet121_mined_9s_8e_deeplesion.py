# LENS on DeepLesion alone with mined labels: rows of Table IV up to cross-dataset mining.
_base_ = [
    "../_base_/models/lens_densenet121_afp.py",
    "../_base_/datasets/lens_deeplesion-mined_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
