# FCOS heads of four datasets as the whole detector: row "FCOS, 1 stage" of Table III.
_base_ = [
    "../_base_/models/lens_densenet121_fcos-1stage-4datasets.py",
    "../_base_/datasets/lens_4datasets_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
