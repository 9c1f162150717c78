# LENS, Table V, positive data pooling: as lens_pooled_9s.py, but of the datasets that label one kind of lesion only the
# lesions count. Their slices without lesions would teach nothing and are not drawn.
_base_ = "lens_pooled_9s.py"

train_dataloader = dict(
    sampler=dict(positive_ratio=None),
    dataset=dict(
        shared=dict(
            pipeline=dict(ignore=dict(type="IgnoreBackground", datasets=["luna16", "lits", "nih-ln"])),
        ),
    ),
)
