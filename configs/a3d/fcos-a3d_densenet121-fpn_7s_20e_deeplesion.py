# FCOS on A3D; not a row of the paper.
_base_ = [
    "../_base_/models/a3d_densenet121-fcos.py",
    "../_base_/datasets/deeplesion_7s.py",
    "../_base_/schedules/sgd_20e.py",
    "../_base_/default_runtime.py",
]

train_dataloader = dict(dataset=dict(pipeline=dict(truth=dict(with_mask=False))))  # one stage has no mask head
# FCOS's own 0.01 for 16 images, scaled to the 4 of this schedule's `base_batch_size`.
optim_wrapper = dict(optimizer=dict(lr=0.0025))
