# DeepLesion alone of lens_4datasets_9s.py, tested as there.
_base_ = "lens_4datasets_9s.py"

train_datasets = [_base_.train_datasets[0]]
train_dataloader = dict(dataset=dict(datasets=train_datasets))
