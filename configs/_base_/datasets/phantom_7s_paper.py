# As phantom_7s.py with a window that is wider by the same third as the partial-label paper's is than the A3D code's.
_base_ = "phantom_7s.py"

window = dict(type="WindowHU", window_hu=(-160, 373), out_range=(0, 255), offset=-50)
train_pipeline = [_base_.train_pipeline[0], window, *_base_.train_pipeline[2:]]
test_pipeline = [_base_.test_pipeline[0], window, *_base_.test_pipeline[2:]]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
