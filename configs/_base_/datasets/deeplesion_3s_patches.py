# DeepLesion, official split, a patch of 120 x 120 mm round each lesion on its key slice, 3 slices 2 mm apart.
# Make the annotation files with: mmpluld convert deeplesion data/deeplesion --tags FILE --tag-ontology FILE
# The test asks which marks are one lesion, and needs the numbers that convert's --lesion-pairs gives to the marks of
# annotations/val.json and test.json; a phantom has them in truth/val.json.
# Numbers: published LesaNet code (load_ct_img.py, config.yml).
__data_root = "data/deeplesion"
__num_tags = 171

__load = dict(type="LoadSliceStack", num_slices=3, slice_gap_mm=2.0, interp="exact")
# Grey values from 0 to 255, less 50, over 255.
__window = dict(type="WindowHU", window_hu=(-1024, 3071), out_range=(0, 1), offset=-50 / 255)
__truth = dict(type="LoadAnnotations", with_bbox=True)
__tags = dict(type="LoadLesionTags", num_tags=__num_tags, uncertain="masked")
__resize = dict(type="ResizeToSpacing", pixel_mm=1.0, max_size=800)
__pack = dict(type="PackLesionPatches", meta_keys=("img_id", "volume_id", "patient", "key_slice"))
__order = ["load", "jitter", "window", "truth", "tags", "turn", "resize", "crop", "pack"]

train_dataloader = dict(
    batch_size=128,
    num_workers=4,
    persistent_workers=False,  # so that the workers' random state is renewed each epoch
    sampler=dict(type="DefaultSampler", shuffle=True),
    worker_init_fn=dict(type="seed_worker"),
    collate_fn=dict(type="pseudo_collate"),
    dataset=dict(
        type="CTLesionDataset",
        data_root=__data_root,
        ann_file="annotations/train.json",
        sampling=dict(policy="key_slices"),
        pipeline=dict(
            order=__order,
            load=__load,
            window=__window,
            truth=__truth,
            tags=__tags,
            resize=__resize,
            crop=dict(type="CropLesionPatches", size=120),
            pack=__pack,
        ),
    ),
)
test_dataloader = dict(
    batch_size=16,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="CTLesionDataset",
        data_root=__data_root,
        ann_file="annotations/val.json",
        sampling=dict(policy="key_slices"),
        pipeline=dict(
            order=__order,
            load=__load,
            window=__window,
            truth=__truth,
            resize=__resize,
            crop=dict(type="CropLesionPatches", size=120),
            pack=__pack,
        ),
        test_mode=True,
    ),
)
test_evaluator = dict(type="MatchingMetric")
custom_hooks = [dict(type="TagStatisticsHook"), dict(type="NumberedPatientsHook")]

# The miniature: the phantom, with 2.8 mm pixels, the window of the detectors' miniatures, and lesion types as tags.
__twin_steps = dict(
    load=dict(num_threads=0),
    window=dict(window_hu=(-200, 300)),
    resize=dict(pixel_mm=2.8, max_size=None),
    crop=dict(size=48),
)
twin_data = dict(
    num_tags=8,
    train_dataloader=dict(batch_size=64, num_workers=0, dataset=dict(pipeline=__twin_steps)),
    test_dataloader=dict(num_workers=0, dataset=dict(ann_file="truth/val.json", pipeline=__twin_steps)),
)
twin_source = dict(data_root="data/phantom")
