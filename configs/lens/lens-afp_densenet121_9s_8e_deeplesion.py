# LENS on DeepLesion alone: row (a) of Table II, row "single dataset" of Table V.
_base_ = [
    "../_base_/models/lens_densenet121_afp.py",
    "../_base_/datasets/lens_deeplesion_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
