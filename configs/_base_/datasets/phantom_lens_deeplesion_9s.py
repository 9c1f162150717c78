# Phantom twin of lens_deeplesion_9s.py.
_base_ = "phantom_lens_9s.py"

train_datasets = [_base_.train_datasets[0]]
train_dataloader = dict(dataset=dict(datasets=train_datasets))
