# LesaNet as published: what lies close together is what has the same tags.
_base_ = [
    "../_base_/models/lesanet_vgg16.py",
    "../_base_/datasets/deeplesion_3s_patches.py",
    "../_base_/default_runtime.py",
    "../_base_/schedules/sgd_15e.py",
]

default_hooks = dict(checkpoint=dict(save_best=None))  # nothing is validated while it trains
