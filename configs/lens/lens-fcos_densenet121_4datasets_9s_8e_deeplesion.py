# LENS with FCOS for proposals: row "FCOS, 2 stages" of Table III, detector of row (d) of Table II.
_base_ = [
    "../_base_/models/lens_densenet121_fcos-4datasets.py",
    "../_base_/datasets/lens_4datasets_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
