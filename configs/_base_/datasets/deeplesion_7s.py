# DeepLesion, official split, key slices, 7 slices 2 mm apart.
# Make the annotation files with: mmpluld convert deeplesion data/deeplesion
# The steps of a pipeline have names; what `order` names without a step is a place for one of another config.
# Names with two underscores end with this file:
# `data_root`, `num_slices`, `interp` or `window_hu` at the top of a config that inherits this one sets them everywhere.
__data_root = "data/deeplesion"

# The peers' own interpolation is wrong beyond the first step; interp="peer" reproduces it.
__load = dict(type="LoadSliceStack", num_slices=7, slice_gap_mm=2.0, interp="exact")
# The A3D code's window; the partial-label paper states (-1024, 3071).
__window = dict(type="WindowHU", window_hu=(-1024, 2050), out_range=(0, 255), offset=-50)
__pack = dict(
    type="PackDetInputs",
    meta_keys=(  # those that a sample has; crop_offset comes from CropBody
        "img_id",
        "img_path",
        "volume_id",
        "patient",
        "dataset",
        "key_slice",
        "slice_interval_mm",
        "spacing_mm",
        "ori_shape",
        "img_shape",
        "scale_factor",
        "flip",
        "flip_direction",
        "crop_offset",
        "homography_matrix",  # from the file's pixels to the image's
        "recist_mm",
        "body_context",
    ),
)
__train_pipeline = dict(
    order=["load", "window", "truth", "augment", "resize", "crop", "filter", "flip", "pack"],
    load=__load,
    window=__window,
    # Masks are made by the converter; with_mask=False suits detectors without a mask head.
    truth=dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    # Published A3D configs; the partial-label paper states the flip alone.
    augment=dict(type="ShiftScaleRotate", prob=0.8, shift_limit=0.04, scale_limit=0.2, rotate_limit=15),
    resize=dict(type="Resize", scale=(512, 512), keep_ratio=True),
    flip=dict(type="RandomFlip", prob=0.5),
    pack=__pack,
)
__test_pipeline = dict(
    order=["load", "window", "resize", "truth", "pack"],
    load=__load,
    window=__window,
    resize=dict(type="Resize", scale=(512, 512), keep_ratio=True),
    # After the resize, so that the truth stays in the pixels of the file, like the predictions.
    truth=dict(type="LoadAnnotations", with_bbox=True),
    pack=__pack,
)

train_dataloader = dict(
    batch_size=4,  # what the rate of the schedule is for, see there; of all processes together
    num_workers=4,
    persistent_workers=False,  # so that the workers' random state is renewed each epoch
    sampler=dict(type="DefaultSampler", shuffle=True),
    worker_init_fn=dict(type="seed_worker"),
    dataset=dict(
        type="CTLesionDataset",
        data_root=__data_root,
        ann_file="annotations/train.json",
        sampling=dict(policy="key_slices"),
        pipeline=__train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CTLesionDataset",
        data_root=__data_root,
        ann_file="annotations/val.json",
        sampling=dict(policy="key_slices"),
        pipeline=__test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CTLesionDataset",
        data_root=__data_root,
        ann_file="annotations/test.json",
        sampling=dict(policy="key_slices"),
        pipeline=__test_pipeline,
        test_mode=True,
    ),
)
val_evaluator = dict(type="FROCMetric", protocol="deeplesion-2d")
# The second has nothing to say about detectors without a mask head.
test_evaluator = [dict(type="FROCMetric", protocol="deeplesion-2d"), dict(type="RECISTMetric")]

# The miniature: the phantom in DeepLesion's layout. Training sees the marked lesions only, the test the complete truth.
# The crop and the smallest box of all miniatures, those of LENS and MULAN too, stand here.
# Make it with: mmpluld phantom twins data/phantom
__twin_test_pipeline = dict(
    load=dict(num_threads=0),
    # The phantom has 2.8 mm pixels; real scans are brought to the same size.
    resize=dict(_delete_=True, type="ResizeToSpacing", pixel_mm=2.8),
)
twin_data = dict(
    # Soft tissue, and bone wide enough for its lesions: few iterations do not learn 100 HU within 3000.
    window_hu=(-200, 300),
    train_dataloader=dict(
        batch_size=8,
        num_workers=0,
        dataset=dict(
            pipeline=dict(
                load=dict(num_threads=0),
                augment=None,
                resize=None,
                # Crops around lesions: four times as many of them in the same time. Slices without lesions are
                # cropped too, so that a sampler's proportion of them holds.
                crop=dict(type="CropAtLesion", crop_size=(64, 64)),
                # What the crop leaves of other lesions; small lesions have boxes of 6 pixels. A sample without any
                # left stays a negative.
                filter=dict(type="FilterAnnotations", min_gt_bbox_wh=(4, 4), keep_empty=False),
            ),
        ),
    ),
    val_dataloader=dict(num_workers=0, dataset=dict(pipeline=__twin_test_pipeline)),
    test_dataloader=dict(num_workers=0, dataset=dict(pipeline=__twin_test_pipeline)),
)
twin_source = dict(  # unless a config has data of its own
    data_root="data/phantom",
    val_dataloader=dict(dataset=dict(ann_file="truth/val_key_slices.json")),
    test_dataloader=dict(dataset=dict(ann_file="truth/test_key_slices.json")),
)
