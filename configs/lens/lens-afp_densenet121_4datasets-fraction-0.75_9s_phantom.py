# Phantom twin of lens-afp_densenet121_4datasets-fraction-0.75_9s_8e_deeplesion.py.
_base_ = "lens-afp_densenet121_4datasets_9s_phantom.py"

fraction = 0.75
train_datasets = [_base_.train_datasets[0], *(dict(part, fraction=fraction) for part in _base_.train_datasets[1:])]
train_dataloader = dict(dataset=dict(datasets=train_datasets))
