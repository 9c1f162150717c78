# The starter weights: synthetic scans alone, for a first look at real ones. Not a row of a paper.
_base_ = [
    "../_base_/models/25d_densenet-narrow_fcos.py",
    "../_base_/datasets/starter_7s.py",
    "../_base_/schedules/adamw_starter.py",
    "../_base_/default_runtime.py",
]
