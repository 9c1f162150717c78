# As deeplesion_7s.py with the published loader's blend of slices, for converted weights.
_base_ = "deeplesion_7s.py"

__pipeline = dict(load=dict(interp="peer"))
train_dataloader = dict(dataset=dict(pipeline=__pipeline))
val_dataloader = dict(dataset=dict(pipeline=__pipeline))
test_dataloader = dict(dataset=dict(pipeline=__pipeline))
