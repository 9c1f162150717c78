# radam_8e.py for trainings on one small dataset: in the miniature the warm-up is the first epoch, since a training on a
# quarter of such a dataset has fewer steps than the usual warm-up.
_base_ = "radam_8e.py"

twin_schedule = dict(
    param_scheduler=[
        dict(type="LinearLR", start_factor=0.1, by_epoch=True, begin=0, end=1, convert_to_iter_based=True),
        dict(type="CosineAnnealingLR", T_max=15, begin=0, end=15, by_epoch=True, convert_to_iter_based=True),
    ],
)
