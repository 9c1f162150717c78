# LENS with FCOS for proposals and mined labels of DeepLesion: row (d) of Table II.
_base_ = [
    "../_base_/models/lens_densenet121_fcos-4datasets.py",
    "../_base_/datasets/lens_4datasets-mined_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
