# DeepLesion as in deeplesion_7s.py with 9 slices, prepared as LENS and MULAN do: full window, 0.8 mm pixels, scaled by
# 0.8 to 1.2 and shifted by up to 8 px in training, no flips. Not done: cutting away the air around the body; what is
# left has at most 512 px there, a limit that would make the pixels of whole images coarser.
_base_ = "deeplesion_7s.py"
num_slices = 9

load_slices = dict(type="LoadSliceStack", num_slices=num_slices, slice_gap_mm=2.0, interp="exact")
window = dict(type="WindowHU", window_hu=(-1024, 3071), out_range=(0, 255), offset=-50)
resize = dict(type="ResizeToSpacing", pixel_mm=0.8)
load_boxes = dict(type="LoadAnnotations", with_bbox=True)
pack = dict(type="PackDetInputs", meta_keys={{_base_.meta_keys}})

train_pipeline = [
    load_slices,
    window,
    load_boxes,
    dict(type="ShiftScaleRotate", prob=1.0, shift_limit=8 / 512, scale_limit=0.2, rotate_limit=0),
    resize,
    pack,
]
test_pipeline = [load_slices, window, resize, load_boxes, pack]

train_dataloader = dict(
    batch_size=4,  # LENS, sec. VI-B
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
