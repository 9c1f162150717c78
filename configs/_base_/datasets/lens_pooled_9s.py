# LENS, Table V, data pooling: the samples of lens_4datasets_9s.py in batches that mix the datasets, for one head.
_base_ = "lens_4datasets_9s.py"

train_dataloader = dict(sampler=dict(batch_size=None))
twin_data = dict(train_dataloader=dict(sampler=dict(batch_size=None)))
