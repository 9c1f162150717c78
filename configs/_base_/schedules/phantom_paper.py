# As phantom.py with what sgd_20e_paper.py changes: a tenth of the learning rate, dropped after 12 and 14 of 20 epochs,
# here 13 and 15 of 22.
_base_ = "phantom.py"

optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type="MultiStepLR", begin=0, end=22, by_epoch=True, milestones=[13, 15], gamma=0.1),
]
