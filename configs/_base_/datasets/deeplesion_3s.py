# DeepLesion as in deeplesion_7s.py with 3 slices and without masks, for 2D detectors that read slices as colours.
_base_ = "deeplesion_7s.py"

__load = dict(num_slices=3)
train_dataloader = dict(dataset=dict(pipeline=dict(load=__load, truth=dict(with_mask=False))))
val_dataloader = dict(dataset=dict(pipeline=dict(load=__load)))
test_dataloader = dict(dataset=dict(pipeline=dict(load=__load)))
