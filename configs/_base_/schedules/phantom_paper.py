# As phantom.py with what sgd_20e_paper.py changes: a tenth of the learning rate, dropped after 12 and 14 of 20 epochs,
# here 10 and 12 of 17.
_base_ = "phantom.py"

optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type="MultiStepLR", begin=0, end=17, by_epoch=True, milestones=[10, 12], gamma=0.1),
]
