# LENS with CenterNet for proposals: row "CenterNet" of Table III.
_base_ = [
    "../_base_/models/lens_densenet121_centernet-4datasets.py",
    "../_base_/datasets/lens_4datasets_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
