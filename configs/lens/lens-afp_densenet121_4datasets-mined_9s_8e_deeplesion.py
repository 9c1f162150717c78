# LENS on four datasets with mined labels of DeepLesion: row (g) of Table II, row "proposed" of Table V.
_base_ = [
    "../_base_/models/lens_densenet121_afp-4datasets.py",
    "../_base_/datasets/lens_4datasets-mined_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
