# LENS, Table V, positive data pooling: as lens_pooled_9s.py, but of the datasets that label one kind of lesion only the
# lesions count. Their slices without lesions would teach nothing and are not drawn.
_base_ = "lens_4datasets_9s.py"

ignore_background = dict(type="IgnoreBackground", datasets=["luna16", "lits", "nih-ln"])
train_pipeline = [*_base_.train_pipeline[:-1], ignore_background, _base_.train_pipeline[-1]]
train_datasets = [dict(part, pipeline=train_pipeline) for part in _base_.train_datasets]
train_dataloader = dict(
    sampler=dict(batch_size=None, positive_ratio=None),
    dataset=dict(datasets=train_datasets),
)
