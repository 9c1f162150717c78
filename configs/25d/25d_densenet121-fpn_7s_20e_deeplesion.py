# 2.5D baseline of the published A3D code, which has 3 slices; no numbers were published with it.
_base_ = [
    "../_base_/models/25d_densenet121-fpn.py",
    "../_base_/datasets/deeplesion_7s.py",
    "../_base_/schedules/sgd_20e.py",
    "../_base_/default_runtime.py",
]

# 16 per GPU on 2 GPUs (published 2.5D config; our reading of the number of GPUs).
train_dataloader = dict(batch_size=32)
auto_scale_lr = dict(base_batch_size=32)
