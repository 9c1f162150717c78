# One detector for each of four datasets, joined in the test: row "separate models" of Table V.
_base_ = [
    "../_base_/models/lens_densenet121_afp-4datasets-separate.py",
    "../_base_/datasets/lens_4datasets_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
