# Published MULAN code: SGD 0.004 with batches of 8, 8 epochs, x0.1 after 4 and 6, no warm-up, biases at twice the rate
# and without decay (mmengine treats those of norms as other weights), gradient norm at most 10.
_base_ = "sgd_20e.py"

train_cfg = dict(max_epochs=8)
optim_wrapper = dict(
    optimizer=dict(type="SGD", lr=0.004, momentum=0.9, weight_decay=5e-4),
    paramwise_cfg=dict(bias_lr_mult=2.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [dict(type="MultiStepLR", begin=0, end=8, by_epoch=True, milestones=[4, 6], gamma=0.1)]
auto_scale_lr = dict(enable=False, base_batch_size=8)

# The miniature of MULAN and of LENS, which are compared: one optimizer, rate and number of steps (about 1,700 on four
# datasets).
twin_schedule = dict(
    train_cfg=dict(max_epochs=15),
    optim_wrapper=dict(
        optimizer=dict(lr=1e-3),
        # A step changes all weights alike: at the full rate the layers behind RoIAlign, with thousands of inputs, end
        # with units that never respond again.
        paramwise_cfg=dict(
            _delete_=True, custom_keys={"shared_fcs": dict(lr_mult=0.1), "tag_head.fcs": dict(lr_mult=0.1)}
        ),
    ),
    param_scheduler=[
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=100),
        dict(type="CosineAnnealingLR", T_max=15, begin=0, end=15, by_epoch=True, convert_to_iter_based=True),
    ],
)
