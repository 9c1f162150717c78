# The 20-epoch schedule in miniature, for minutes on one CPU core.
_base_ = "sgd_20e.py"

train_cfg = dict(max_epochs=8, val_interval=100)
optim_wrapper = dict(optimizer=dict(lr=0.02))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type="MultiStepLR", begin=0, end=8, by_epoch=True, milestones=[6, 7], gamma=0.1),
]
