# Phantom twin of lens_pooled_9s.py.
_base_ = "phantom_lens_9s.py"

train_dataloader = dict(sampler=dict(batch_size=None))
