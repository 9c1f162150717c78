# DeepLesion as in deeplesion_7s.py with 9 slices, prepared as LENS and MULAN do: the air around the body cut away, full
# window, 0.8 mm pixels but at most 512 of them, scaled by 0.8 to 1.2 and shifted by up to 8 px in training, no flips.
_base_ = "deeplesion_7s.py"
num_slices = 9
meta_keys = (*_base_.meta_keys, "crop_offset")

load_slices = dict(type="LoadSliceStack", num_slices=num_slices, slice_gap_mm=2.0, interp="exact")
window = dict(type="WindowHU", window_hu=(-1024, 3071), out_range=(0, 255), offset=-50)
load_boxes = dict(type="LoadAnnotations", with_bbox=True)
pack = dict(type="PackDetInputs", meta_keys=meta_keys)

train_pipeline = [
    load_slices,
    load_boxes,
    dict(type="CropBody", shift_px=8),
    window,
    dict(type="ResizeToSpacing", pixel_mm=0.8, max_size=512, ratio_range=(0.8, 1.2)),
    pack,
]
test_pipeline = [
    load_slices,
    dict(type="CropBody"),
    window,
    dict(type="ResizeToSpacing", pixel_mm=0.8, max_size=512),
    load_boxes,
    pack,
]

train_dataloader = dict(
    batch_size=4,  # LENS, sec. VI-B
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
