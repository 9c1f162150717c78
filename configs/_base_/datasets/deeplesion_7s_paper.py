# As deeplesion_7s.py with the partial-label paper's own preparation: its window, and the flip as only augmentation.
_base_ = "deeplesion_7s.py"

__window = dict(window_hu=(-1024, 3071))  # the offset is not stated
train_dataloader = dict(dataset=dict(pipeline=dict(window=__window, augment=None)))
val_dataloader = dict(dataset=dict(pipeline=dict(window=__window)))
test_dataloader = dict(dataset=dict(pipeline=dict(window=__window)))

# The miniature's window is wider by the same third.
twin_data = dict(window_hu=(-160, 373))
