# As deeplesion_7s_native.py with 3 slices and the published loader's blend of thin slices, for converted weights.
_base_ = "deeplesion_7s.py"

__pipeline = dict(load=dict(num_slices=3, interp="native-peer"))
train_dataloader = dict(dataset=dict(pipeline=__pipeline))
val_dataloader = dict(dataset=dict(pipeline=__pipeline))
test_dataloader = dict(dataset=dict(pipeline=__pipeline))
