# LENS on four datasets, one expert each, whose detections are joined: row (c) of Table II, row "proposed" of Table V,
# both without mining of missing labels.
_base_ = [
    "../_base_/models/lens_densenet121_afp-4datasets.py",
    "../_base_/datasets/lens_4datasets_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
