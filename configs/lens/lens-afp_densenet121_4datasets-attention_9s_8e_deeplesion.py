# LENS on four datasets with domain attention: row "proposed + domain adaptation" of Table V.
_base_ = [
    "../_base_/models/lens_densenet121_afp-4datasets-attention.py",
    "../_base_/datasets/lens_4datasets_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
