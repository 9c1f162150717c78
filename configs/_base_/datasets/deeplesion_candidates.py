# Candidates of false-positive reduction on DeepLesion: a detector's 3D proposals, lesions and false positives 1 to 2.
# Make the files with `mmpluld harvest`, from proposals of detectors that were trained on other patients.
__data_root = "data/deeplesion"
__load = dict(type="LoadPatch", size=(16, 96, 96), voxel_mm=(2.0, 0.8, 0.8), beyond="edge")  # ours
__window = dict(type="WindowHU", window_hu=(-1024, 3071), out_range=(-1, 1), offset=0)
__test_pipeline = dict(order=["load", "window", "pack"], load=__load, window=__window, pack=dict(type="PackPatch"))
__val_dataloader = dict(
    batch_size=32,
    num_workers=2,
    sampler=dict(type="DefaultSampler", shuffle=False),
    collate_fn=dict(type="default_collate"),
    dataset=dict(
        type="CandidateDataset",
        data_root=__data_root,
        ann_file="candidates/val.json",
        pipeline=__test_pipeline,
        test_mode=True,
    ),
)

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=False,  # so that the workers' random state is renewed each epoch
    sampler=dict(type="LesionSampler", positive_ratio=0.5),
    collate_fn=dict(type="default_collate"),
    worker_init_fn=dict(type="seed_worker"),
    dataset=dict(
        type="CandidateDataset",
        data_root=__data_root,
        ann_file="candidates/train.json",
        pipeline=dict(
            order=["load", "window", "flip", "pack"],
            load=__load,
            window=__window,
            flip=dict(type="FlipPatch", prob=(0.5, 0.5, 0.5)),  # ours
            pack=dict(type="PackPatch"),
        ),
    ),
)
val_dataloader = dict(**__val_dataloader)
test_dataloader = dict(**__val_dataloader)
val_evaluator = dict(type="CandidateMetric")
test_evaluator = dict(type="CandidateMetric")

# The miniature: the same patch in millimetres on the phantom's pixels, with the window of the detectors' miniatures.
# Make the data with `mmpluld phantom lens data/phantom-lens`.
__twin_load = dict(size=(16, 28, 28), voxel_mm=(2.0, 2.8, 2.8))
twin_data = dict(
    window_hu=(-200, 300),
    train_dataloader=dict(num_workers=0, dataset=dict(pipeline=dict(load=__twin_load))),
    val_dataloader=dict(num_workers=0, dataset=dict(pipeline=dict(load=__twin_load))),
    test_dataloader=dict(num_workers=0, dataset=dict(pipeline=dict(load=__twin_load))),
)
twin_source = dict(data_root="data/phantom-lens/deeplesion")
