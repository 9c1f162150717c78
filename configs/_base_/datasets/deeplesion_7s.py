# DeepLesion, official split, key slices, 7 slices 2 mm apart.
# Make the annotation files with: mmpluld convert deeplesion data/deeplesion
data_root = "data/deeplesion"
num_slices = 7
meta_keys = (
    "img_id",
    "img_path",
    "volume_id",
    "patient",
    "key_slice",
    "slice_interval_mm",
    "spacing_mm",
    "ori_shape",
    "img_shape",
    "scale_factor",
    "flip",
    "flip_direction",
    "recist_mm",
)

train_pipeline = [
    # The peers' own interpolation is wrong beyond the first step; interp="peer" reproduces it.
    dict(type="LoadSliceStack", num_slices=num_slices, slice_gap_mm=2.0, interp="exact"),
    # The A3D code's window; the partial-label paper states (-1024, 3071).
    dict(type="WindowHU", window_hu=(-1024, 2050), out_range=(0, 255), offset=-50),
    # Masks are made by the converter; with_mask=False suits detectors without a mask head.
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    # Published A3D configs; the partial-label paper states the flip alone.
    dict(type="ShiftScaleRotate", prob=0.8, shift_limit=0.04, scale_limit=0.2, rotate_limit=15),
    dict(type="Resize", scale=(512, 512), keep_ratio=True),
    dict(type="RandomFlip", prob=0.5),
    dict(type="PackDetInputs", meta_keys=meta_keys),
]
test_pipeline = [
    dict(type="LoadSliceStack", num_slices=num_slices, slice_gap_mm=2.0, interp="exact"),
    dict(type="WindowHU", window_hu=(-1024, 2050), out_range=(0, 255), offset=-50),
    dict(type="Resize", scale=(512, 512), keep_ratio=True),
    # After the resize, so that the truth stays in the pixels of the file, like the predictions.
    dict(type="LoadAnnotations", with_bbox=True),
    dict(type="PackDetInputs", meta_keys=meta_keys),
]

train_dataloader = dict(
    batch_size=2,  # partial-label paper, sec. 5; the A3D config has 1 per GPU
    num_workers=4,
    persistent_workers=False,  # so that the workers' random state is renewed each epoch
    sampler=dict(type="DefaultSampler", shuffle=True),
    worker_init_fn=dict(type="seed_worker"),
    dataset=dict(
        type="CTLesionDataset",
        data_root=data_root,
        ann_file="annotations/train.json",
        sampling=dict(policy="key_slices"),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CTLesionDataset",
        data_root=data_root,
        ann_file="annotations/val.json",
        sampling=dict(policy="key_slices"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CTLesionDataset",
        data_root=data_root,
        ann_file="annotations/test.json",
        sampling=dict(policy="key_slices"),
        pipeline=test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type="FROCMetric", protocol="deeplesion-2d")
# The second has nothing to say about detectors without a mask head.
test_evaluator = [val_evaluator, dict(type="RECISTMetric")]
