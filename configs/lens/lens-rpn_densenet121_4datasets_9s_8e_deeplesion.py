# LENS with region proposal networks: row "RPN" of Table III.
_base_ = [
    "../_base_/models/lens_densenet121_rpn-4datasets.py",
    "../_base_/datasets/lens_4datasets_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
