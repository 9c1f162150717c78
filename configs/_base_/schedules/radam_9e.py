# As radam_8e.py with about as many steps on DeepLesion alone as LENS has in 8 epochs on four datasets: some 22,500 key
# slices, to which the others add about 3,000 lesions and half as many slices without any.
_base_ = "radam_8e.py"

train_cfg = dict(max_epochs=9)
param_scheduler = [dict(type="MultiStepLR", begin=0, end=9, by_epoch=True, milestones=[5, 7], gamma=0.1)]

# The miniature: as many steps on DeepLesion's part alone as on four datasets.
twin_schedule = dict(
    train_cfg=dict(max_epochs=23),
    param_scheduler=[
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=100),
        dict(type="CosineAnnealingLR", T_max=23, begin=0, end=23, by_epoch=True, convert_to_iter_based=True),
    ],
)
