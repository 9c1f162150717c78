# Minutes on one CPU core, from random weights: AdamW and a cosine instead of the 20-epoch SGD schedule.
_base_ = "sgd_20e.py"

train_cfg = dict(max_epochs=17, val_interval=100)
optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=2e-3, weight_decay=0.01))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", T_max=17, begin=0, end=17, by_epoch=True, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=8)  # that of the phantom's data
