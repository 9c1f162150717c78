# The phantom in DeepLesion's layout. Training sees the marked lesions only, the test has the complete truth.
# Make it with: mmpluld phantom deeplesion data/phantom && mmpluld convert deeplesion data/phantom
_base_ = "deeplesion_7s.py"
data_root = "data/phantom"

# Soft tissue only: few iterations from random weights do not learn 40 HU within 3000.
window_hu = (-160, 240)

train_pipeline = [
    dict(type="LoadSliceStack", num_slices=7, slice_gap_mm=2.0, interp="exact", num_threads=1),
    dict(type="WindowHU", window_hu=window_hu, out_range=(0, 255), offset=-50),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    # Crops around lesions: four times as many of them in the same time.
    dict(type="RandomCrop", crop_size=(64, 64), allow_negative_crop=False),
    dict(type="FilterAnnotations", min_gt_bbox_wh=(9, 9)),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs", meta_keys={{_base_.meta_keys}}),
]
test_pipeline = [
    dict(type="LoadSliceStack", num_slices=7, slice_gap_mm=2.0, interp="exact", num_threads=1),
    dict(type="WindowHU", window_hu=window_hu, out_range=(0, 255), offset=-50),
    # The phantom has 2.8 mm pixels; real scans are brought to the same size.
    dict(type="ResizeToSpacing", pixel_mm=2.8),
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys={{_base_.meta_keys}}),
]

train_dataloader = dict(batch_size=8, num_workers=0, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(
    num_workers=0,
    dataset=dict(data_root=data_root, ann_file="truth/val_key_slices.json", pipeline=test_pipeline),
)
test_dataloader = dict(
    num_workers=0,
    dataset=dict(data_root=data_root, ann_file="truth/test_key_slices.json", pipeline=test_pipeline),
)
