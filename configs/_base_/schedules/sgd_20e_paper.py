# The partial-label paper's schedule: lr 0.002, drops after 12 and 14 epochs. It speaks of 200 epochs and of convergence
# at about 20. Warm-up and clipping are not stated; they are those of the A3D code.
_base_ = "sgd_20e.py"

optim_wrapper = dict(optimizer=dict(lr=0.002))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=20, by_epoch=True, milestones=[12, 14], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=2)  # the paper's, sec. 5

# The miniature: a tenth of its usual rate too, drops after 10 and 12 of 17 epochs.
twin_schedule = dict(
    optim_wrapper=dict(optimizer=dict(lr=2e-4)),
    param_scheduler=[
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=30),
        dict(type="MultiStepLR", begin=0, end=17, by_epoch=True, milestones=[10, 12], gamma=0.1),
    ],
)
