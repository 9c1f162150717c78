# As deeplesion_7s.py with the partial-label paper's own preparation: its window, and the flip as only augmentation.
_base_ = "deeplesion_7s.py"

window = dict(type="WindowHU", window_hu=(-1024, 3071), out_range=(0, 255), offset=-50)  # offset: not stated
# All but ShiftScaleRotate, the fourth step.
train_pipeline = [_base_.train_pipeline[0], window, _base_.train_pipeline[2], *_base_.train_pipeline[4:]]
test_pipeline = [_base_.test_pipeline[0], window, *_base_.test_pipeline[2:]]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
