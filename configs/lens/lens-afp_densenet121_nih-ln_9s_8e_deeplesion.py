# LENS on NIH-LN alone, in as many steps as on four datasets, tested on NIH-LN: Figure 7.
_base_ = [
    "../_base_/models/lens_densenet121_afp.py",
    "../_base_/datasets/lens_nih-ln_9s.py",
    "../_base_/schedules/radam_8e_short.py",
    "../_base_/default_runtime.py",
]

train_dataloader = dict(sampler=dict(only="nih-ln"))
train_cfg = dict(val_begin=1000)  # never: the validation is on DeepLesion
