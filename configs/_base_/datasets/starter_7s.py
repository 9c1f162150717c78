# Starter scans: synthetic, torsos and limbs, all lesions labelled. Real scans are brought to their size of pixels.
# Make them with: mmpluld phantom starter data/phantom-starter
__data_root = "data/phantom-starter"
__load = dict(type="LoadSliceStack", num_slices=7, slice_gap_mm=3.0, interp="exact", num_threads=0)
# Lung, soft tissue and bone in one image; half of the grey values are between -160 and 240 HU.
__curve = dict(type="CurveHU", hu=(-1024, -700, -160, 240, 1500), grey=(-64, -40, 0, 128, 192))
__pack = dict(
    type="PackDetInputs",
    meta_keys=(
        "img_id",
        "img_path",
        "volume_id",
        "key_slice",
        "slice_interval_mm",
        "spacing_mm",
        "ori_shape",
        "img_shape",
        "scale_factor",
        "flip",
        "flip_direction",
        "homography_matrix",
    ),
)
__test_pipeline = dict(
    order=["load", "curve", "resize", "truth", "pack"],
    load=__load,
    curve=__curve,
    resize=dict(type="ResizeToSpacing", pixel_mm=1.6),
    truth=dict(type="LoadAnnotations", with_bbox=True),
    pack=__pack,
)
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=False,  # so that the worker's random state is renewed each epoch
    # Each lesion on one of its slices in an epoch.
    sampler=dict(type="LesionSampler", one_per_lesion=True, positive_ratio=3),
    worker_init_fn=dict(type="seed_worker"),
    dataset=dict(
        type="CTLesionDataset",
        data_root=__data_root,
        ann_file="annotations/train.json",
        sampling=dict(policy="all_slices"),
        pipeline=dict(
            order=["load", "jitter", "repeat", "curve", "truth", "augment", "crop", "filter", "flip", "pack"],
            load=__load,
            jitter=dict(type="JitterHU", shift_hu=20, scale=0.1, noise_hu=12),
            repeat=dict(type="RepeatKeySlice", prob=0.15),
            curve=__curve,
            truth=dict(type="LoadAnnotations", with_bbox=True),
            augment=dict(type="ShiftScaleRotate", prob=0.9, shift_limit=0.04, scale_limit=0.35, rotate_limit=15),
            crop=dict(type="CropAtLesion", crop_size=(128, 128)),
            filter=dict(type="FilterAnnotations", min_gt_bbox_wh=(3, 3), keep_empty=False),
            flip=dict(type="RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]),
            pack=__pack,
        ),
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CTLesionDataset",
        data_root=__data_root,
        ann_file="annotations/val.json",
        sampling=dict(policy="all_slices"),
        pipeline=__test_pipeline,
        test_mode=True,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="FROCMetric", protocol="deeplesion-2d")
test_evaluator = dict(type="VolumeFROCMetric", protocol="lens-3d")
