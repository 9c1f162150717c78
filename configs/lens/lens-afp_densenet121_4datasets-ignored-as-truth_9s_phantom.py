# Phantom twin of lens-afp_densenet121_4datasets-ignored-as-truth_9s_8e_deeplesion.py.
_base_ = "lens-afp_densenet121_4datasets_9s_phantom.py"

train_datasets = [dict(part, uncertain="truth") for part in _base_.train_datasets]
train_dataloader = dict(dataset=dict(datasets=train_datasets))
