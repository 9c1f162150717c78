# The phantom as in phantom_7s.py with 9 slices and without masks.
_base_ = "phantom_7s.py"
num_slices = 9

load_slices = dict(type="LoadSliceStack", num_slices=num_slices, slice_gap_mm=2.0, interp="exact", num_threads=1)
load_boxes = dict(type="LoadAnnotations", with_bbox=True)
train_pipeline = [load_slices, _base_.train_pipeline[1], load_boxes, *_base_.train_pipeline[3:]]
test_pipeline = [load_slices, *_base_.test_pipeline[1:]]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
