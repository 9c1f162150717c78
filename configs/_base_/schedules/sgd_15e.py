# Published LesaNet code: SGD 0.01 with batches of 128, 15 epochs, x0.1 after 10. Its momentum is not recorded; 0.9 is
# ours.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=15, val_interval=100)
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="SGD", lr=0.01, momentum=0.9, weight_decay=1e-4),
)
param_scheduler = [dict(type="MultiStepLR", begin=0, end=15, by_epoch=True, milestones=[10], gamma=0.1)]
auto_scale_lr = dict(enable=False, base_batch_size=128)

# The miniature: minutes on one CPU core.
twin_schedule = dict(
    train_cfg=dict(max_epochs=30),
    auto_scale_lr=dict(base_batch_size=64),
    optim_wrapper=dict(optimizer=dict(_delete_=True, type="AdamW", lr=2e-3, weight_decay=0.01)),
    param_scheduler=[
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=30),
        dict(type="CosineAnnealingLR", T_max=30, begin=0, end=30, by_epoch=True, convert_to_iter_based=True),
    ],
)
