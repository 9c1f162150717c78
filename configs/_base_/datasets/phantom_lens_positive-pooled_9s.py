# Phantom twin of lens_positive-pooled_9s.py.
_base_ = "phantom_lens_9s.py"

ignore_background = dict(type="IgnoreBackground", datasets=["luna16", "lits", "nih-ln"])
train_pipeline = [*_base_.train_pipeline[:-1], ignore_background, _base_.train_pipeline[-1]]
train_datasets = [dict(part, pipeline=train_pipeline) for part in _base_.train_datasets]
train_dataloader = dict(
    sampler=dict(batch_size=None, positive_ratio=None),
    dataset=dict(datasets=train_datasets),
)
