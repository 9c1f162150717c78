# As phantom.py in about 750 steps on four datasets, tested on whole volumes as radam_8e.py does.
_base_ = "phantom.py"

train_cfg = dict(max_epochs=9)
optim_wrapper = dict(
    optimizer=dict(lr=1e-3),
    # A step changes all weights alike: at the full rate the layers behind RoIAlign, with thousands of inputs, end with
    # units that never respond again.
    paramwise_cfg=dict(custom_keys={"shared_fcs": dict(lr_mult=0.1)}),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", T_max=9, begin=0, end=9, by_epoch=True, convert_to_iter_based=True),
]
test_cfg = dict(
    _delete_=True, type="VolumeTestLoop", link_score_thr=0.05, iou_thr=0.5, max_gap=0, score_rule="max", min_slices=1
)
