# The partial-label paper's own recipe where the A3D code, whose values the rows have, has another: window -1024 to 3071
# HU, flips as only augmentation, lr 0.002 with drops after 12 and 14 epochs, batches of 2. The paper speaks of 200
# epochs and of convergence at about 20. The window's offset, warm-up and clipping are not stated; they are the code's.
# Merged over a row of 20 epochs by its name, `a3d_densenet121-fpn_paper_7s_20e_deeplesion`, and by
# `mmpluld reproduce table1 --recipe paper`.
__window = dict(window_hu=(-1024, 3071))
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=dict(window=__window, augment=None)))
val_dataloader = dict(dataset=dict(pipeline=dict(window=__window)))
test_dataloader = dict(dataset=dict(pipeline=dict(window=__window)))
optim_wrapper = dict(optimizer=dict(lr=0.002))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type="MultiStepLR", begin=0, end=20, by_epoch=True, milestones=[12, 14], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=2)

# The miniature: its window wider by the same third, a tenth of its usual rate, drops after the same share of epochs.
twin_data = dict(window_hu=(-200, 467))
twin_schedule = dict(
    optim_wrapper=dict(optimizer=dict(lr=2e-4)),
    param_scheduler=[
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=30),
        dict(type="MultiStepLR", begin=0, end=22, by_epoch=True, milestones=[13, 15], gamma=0.1),
    ],
)
