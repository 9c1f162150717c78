# LENS on LiTS alone, in as many steps as on four datasets, tested on LiTS: Figure 7.
_base_ = [
    "../_base_/models/lens_densenet121_afp.py",
    "../_base_/datasets/lens_lits_9s.py",
    "../_base_/schedules/radam_8e_short.py",
    "../_base_/default_runtime.py",
]

train_dataloader = dict(sampler=dict(only="lits"))
train_cfg = dict(val_begin=1000)  # never: the validation is on DeepLesion
