# As deeplesion_7s.py, but series of 2 mm and more keep their own slices: AlignShift aligns them inside the network.
# Thinner series are interpolated as everywhere here; interp="native-peer" has the published loader's blend.
_base_ = "deeplesion_7s.py"

__pipeline = dict(load=dict(interp="native"))
train_dataloader = dict(dataset=dict(pipeline=__pipeline))
val_dataloader = dict(dataset=dict(pipeline=__pipeline))
test_dataloader = dict(dataset=dict(pipeline=__pipeline))
