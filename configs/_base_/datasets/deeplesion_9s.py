# DeepLesion as in deeplesion_7s.py with 9 slices, prepared as LENS and MULAN do: the air around the body cut away, full
# window, 0.8 mm pixels but at most 512 of them, scaled by 0.8 to 1.2 and shifted by up to 8 px in training, no flips.
_base_ = "deeplesion_7s.py"

__load = dict(type="LoadSliceStack", num_slices=9, slice_gap_mm=2.0, interp="exact")
__window = dict(type="WindowHU", window_hu=(-1024, 3071), out_range=(0, 255), offset=-50)
__truth = dict(type="LoadAnnotations", with_bbox=True)
__train_pipeline = dict(
    _delete_=True,
    order=["load", "truth", "tags", "body", "window", "resize", "crop", "filter", "flip", "ignore", "pack"],
    load=__load,
    truth=__truth,
    body=dict(type="CropBody", shift_px=8),
    window=__window,
    resize=dict(type="ResizeToSpacing", pixel_mm=0.8, max_size=512, ratio_range=(0.8, 1.2)),
    pack={{_base_.train_dataloader.dataset.pipeline.pack}},
)
__test_pipeline = dict(
    order=["load", "body", "window", "resize", "truth", "pack"],
    load=__load,
    body=dict(type="CropBody"),
    window=__window,
    resize=dict(type="ResizeToSpacing", pixel_mm=0.8, max_size=512),
    truth=__truth,
    pack={{_base_.test_dataloader.dataset.pipeline.pack}},
)

train_dataloader = dict(
    batch_size=4,  # LENS, sec. VI-B
    dataset=dict(pipeline=__train_pipeline),
)
val_dataloader = dict(dataset=dict(pipeline=dict(_delete_=True, **__test_pipeline)))
test_dataloader = dict(dataset=dict(pipeline=dict(_delete_=True, **__test_pipeline)))

# The miniature: images, window and crops of deeplesion_7s.py; the key slice stays, also for MULAN, so that all rows of
# LENS and MULAN are trained on the same samples: each key slice once in an epoch, in the same steps.
__twin_test_pipeline = dict(body=None)
twin_data = dict(
    train_dataloader=dict(
        sampler=dict(
            _delete_=True,
            type="LesionSampler",
            one_per_lesion=True,
            positive_ratio=2,
            batch_size=8,
            interleave="shuffled",
        ),
        dataset=dict(pipeline=dict(load=dict(z_jitter=0.0), body=None, flip=dict(type="RandomFlip", prob=0.5))),
    ),
    val_dataloader=dict(dataset=dict(pipeline=__twin_test_pipeline)),
    test_dataloader=dict(dataset=dict(pipeline=__twin_test_pipeline)),
)
