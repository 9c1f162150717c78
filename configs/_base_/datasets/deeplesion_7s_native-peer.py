# As deeplesion_7s_native.py with the published loader's blend of thin slices, for converted weights.
_base_ = "deeplesion_7s.py"

load_slices = dict(type="LoadSliceStack", num_slices=7, slice_gap_mm=2.0, interp="native-peer")
train_pipeline = [load_slices, *_base_.train_pipeline[1:]]
test_pipeline = [load_slices, *_base_.test_pipeline[1:]]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
