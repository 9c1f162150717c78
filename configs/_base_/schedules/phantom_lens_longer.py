# Phantom twin of radam_9e.py: as phantom_lens.py with as many steps on DeepLesion's part alone as on four datasets.
_base_ = "phantom_lens.py"

train_cfg = dict(max_epochs=23)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=100),
    dict(type="CosineAnnealingLR", T_max=23, begin=0, end=23, by_epoch=True, convert_to_iter_based=True),
]
