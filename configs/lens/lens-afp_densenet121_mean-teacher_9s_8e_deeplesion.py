# LENS on DeepLesion alone, mining while training, with as many steps as lens-afp_densenet121_longer. Not in the paper.
_base_ = [
    "../_base_/models/lens_densenet121_afp-mean-teacher.py",
    "../_base_/datasets/lens_4datasets_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]

train_dataloader = dict(sampler=dict(only="deeplesion"))
