# LENS, sec. VI-B: RAdam, lr 1e-4, 8 epochs, x0.1 after 4 and 6. It states neither decay nor clipping; they are MULAN's.
_base_ = "sgd_20e.py"

train_cfg = dict(max_epochs=8)
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="RAdam", lr=1e-4, weight_decay=5e-4),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [dict(type="MultiStepLR", begin=0, end=8, by_epoch=True, milestones=[4, 6], gamma=0.1)]
# Whole volumes. The paper fixes the overlap of linked boxes and leaves the rest open.
test_cfg = dict(
    _delete_=True, type="VolumeTestLoop", link_score_thr=0.05, iou_thr=0.5, max_gap=0, score_rule="max", min_slices=1
)

# The miniature: about 750 steps on four datasets.
twin_schedule = dict(
    train_cfg=dict(max_epochs=9),
    optim_wrapper=dict(
        optimizer=dict(lr=1e-3),
        # A step changes all weights alike: at the full rate the layers behind RoIAlign, with thousands of inputs, end
        # with units that never respond again.
        paramwise_cfg=dict(custom_keys={"shared_fcs": dict(lr_mult=0.1)}),
    ),
    param_scheduler=[
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=100),
        dict(type="CosineAnnealingLR", T_max=9, begin=0, end=9, by_epoch=True, convert_to_iter_based=True),
    ],
)
