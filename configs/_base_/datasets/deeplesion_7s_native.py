# As deeplesion_7s.py, but series of 2 mm and more keep their own slices: AlignShift aligns them inside the network.
_base_ = "deeplesion_7s.py"

# Thinner series are interpolated as everywhere here; interp="native-peer" has the published loader's blend.
load_slices = dict(type="LoadSliceStack", num_slices=7, slice_gap_mm=2.0, interp="native")
train_pipeline = [load_slices, *_base_.train_pipeline[1:]]
test_pipeline = [load_slices, *_base_.test_pipeline[1:]]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
