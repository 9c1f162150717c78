# Phantom twin of lens_4datasets_9s.py: four phantoms, each labelled as its dataset labels; images, window and crops as
# in phantom_9s.py. The test has the complete truth, in 3D.
# Make them with: mmpluld phantom lens data/phantom-lens
_base_ = "lens_4datasets_9s.py"
data_root = "data/phantom-lens"

load_slices = dict(type="LoadSliceStack", num_slices=9, slice_gap_mm=2.0, interp="exact", num_threads=1)
# Soft tissue only: few iterations from random weights do not learn 40 HU within 3000.
window = dict(type="WindowHU", window_hu=(-160, 240), out_range=(0, 255), offset=-50)
load_boxes = dict(type="LoadAnnotations", with_bbox=True)
pack = dict(type="PackDetInputs", meta_keys={{_base_.meta_keys}})

train_pipeline = [
    load_slices,
    window,
    load_boxes,
    # Slices without lesions are cropped too, so that the sampler's proportion holds.
    dict(type="CropAtLesion", crop_size=(64, 64)),
    # What the crop leaves of other lesions; a sample without any left stays a negative.
    dict(type="FilterAnnotations", min_gt_bbox_wh=(4, 4), keep_empty=False),
    dict(type="RandomFlip", prob=0.5),
    pack,
]
test_pipeline = [
    load_slices,
    window,
    # The phantom has 2.8 mm pixels; real scans are brought to the same size.
    dict(type="ResizeToSpacing", pixel_mm=2.8),
    load_boxes,
    pack,
]

train_datasets = [dict(part, data_root=data_root, pipeline=train_pipeline) for part in _base_.train_datasets]
train_dataloader = dict(batch_size=8, num_workers=0, sampler=dict(batch_size=8), dataset=dict(datasets=train_datasets))
val_dataloader = dict(num_workers=0, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = dict(
    num_workers=0,
    dataset=dict(data_root=data_root, ann_file="deeplesion/truth/test_subvolumes.json", pipeline=test_pipeline),
)
