# LENS, sec. VI-B, false-positive reduction: RAdam, lr 2e-4, 6 epochs, x0.1 after 2 and 4, batches of 32. It states no
# decay; ours is that of the detector.
train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=6, val_interval=1)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(type="OptimWrapper", optimizer=dict(type="RAdam", lr=2e-4, weight_decay=5e-4))
param_scheduler = [dict(type="MultiStepLR", begin=0, end=6, by_epoch=True, milestones=[2, 4], gamma=0.1)]
auto_scale_lr = dict(enable=False, base_batch_size=32)

# The miniature: from random weights and on few candidates, so at a higher rate and for longer.
twin_schedule = dict(
    train_cfg=dict(max_epochs=12, val_interval=4),
    optim_wrapper=dict(optimizer=dict(lr=2e-3)),
    param_scheduler=[dict(type="MultiStepLR", begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1)],
)
