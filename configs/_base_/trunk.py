# Pretraining of a backbone: which organ does each pixel of the key slice belong to? On phantom patients without
# lesions, which no detector is trained or tested on; the start that ImageNet is for the papers.
# Make them with: mmpluld phantom organs data/phantom-organs --patients 80 8 --set max_slices=24
_base_ = ["datasets/deeplesion_7s.py", "default_runtime.py"]

__data_root = "data/phantom-organs"
__load = dict(type="LoadSliceStack", num_slices=7, slice_gap_mm=2.0, interp="exact", num_threads=0)
# The window of the detectors' miniatures.
__window = dict(type="WindowHU", window_hu={{_base_.twin_data.window_hu}}, out_range=(0, 255), offset=-50)
__pack = dict(type="PackDetInputs", meta_keys=("img_id", "slice_interval_mm", "ori_shape", "img_shape"))
__val_dataloader = dict(
    batch_size=1,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CTLesionDataset",
        data_root=__data_root,
        ann_file="annotations/val.json",
        sampling=dict(policy="all_slices"),
        pipeline=dict(
            order=["load", "window", "organs", "pack"],
            load=__load,
            window=__window,
            organs=dict(type="LoadOrgans"),
            pack=__pack,
        ),
        test_mode=True,
    ),
)

train_dataloader = dict(
    _delete_=True,
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    worker_init_fn=dict(type="seed_worker"),
    dataset=dict(
        type="CTLesionDataset",
        data_root=__data_root,
        ann_file="annotations/train.json",
        sampling=dict(policy="all_slices"),
        pipeline=dict(
            order=["load", "window", "organs", "crop", "flip", "pack"],
            load=__load,
            window=__window,
            organs=dict(type="LoadOrgans"),
            crop=dict(type="RandomCrop", crop_size=(64, 64), allow_negative_crop=True),
            flip=dict(type="RandomFlip", prob=0.5),
            pack=__pack,
        ),
    ),
)
val_dataloader = dict(_delete_=True, **__val_dataloader)
test_dataloader = dict(_delete_=True, **__val_dataloader)
val_evaluator = dict(_delete_=True, type="PixelAccuracyMetric", num_classes=18)
test_evaluator = dict(_delete_=True, type="PixelAccuracyMetric", num_classes=18)
twin_data = None  # of the detectors; a miniature of a trunk is narrower, and sees the same
twin_source = None

train_cfg = dict(type="EpochBasedTrainLoop", max_epochs=3, val_interval=3)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", lr=2e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=35, norm_type=2),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", T_max=3, begin=0, end=3, by_epoch=True, convert_to_iter_based=True),
]
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1, save_best=None))
