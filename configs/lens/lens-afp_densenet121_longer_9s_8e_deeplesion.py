# Control that the paper lacks: LENS on DeepLesion alone, with exactly as many steps as on four datasets.
_base_ = [
    "../_base_/models/lens_densenet121_afp.py",
    "../_base_/datasets/lens_4datasets_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]

train_dataloader = dict(sampler=dict(only="deeplesion"))
