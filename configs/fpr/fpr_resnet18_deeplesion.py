# False-positive reduction of LENS on DeepLesion (Table II, row h).
_base_ = [
    "../_base_/models/fpr_resnet18.py",
    "../_base_/datasets/deeplesion_candidates.py",
    "../_base_/schedules/radam_6e.py",
    "../_base_/default_runtime.py",
]

default_hooks = dict(checkpoint=dict(save_best="fpr/auc"))
