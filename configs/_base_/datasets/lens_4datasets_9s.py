# The four datasets of LENS: DeepLesion, and LUNA16, LiTS and NIH-LN, which label one kind of lesion each. Preparation
# as in deeplesion_9s.py. A new dataset is one more entry of train_dataloader.dataset.datasets; None leaves one out.
# Make the annotation files with: mmpluld convert deeplesion data/deeplesion, and so on for luna16, lits, nih-ln; those
# of the test with: mmpluld convert deeplesion-3d data/deeplesion --boxes FILE
_base_ = "deeplesion_9s.py"
__data_root = "data"
__batch_size = 4  # of one dataset; LENS, sec. VI-B

train_dataloader = dict(
    batch_size=__batch_size,
    sampler=dict(
        _delete_=True,
        type="LesionSampler",
        one_per_lesion=True,
        positive_ratio=2,
        batch_size=__batch_size,
        interleave="shuffled",  # the paper leaves the order open
    ),
    dataset=dict(
        _delete_=True,
        type="NamedConcatDataset",
        shared=dict(
            type="CTLesionDataset",
            data_root=__data_root,
            sampling=dict(policy="all_slices"),
            pipeline={{_base_.train_dataloader.dataset.pipeline}},
        ),
        order=["deeplesion", "luna16", "lits", "nih-ln"],
        datasets={
            "deeplesion": dict(
                data_prefix=dict(img_path="deeplesion"),
                ann_file="deeplesion/annotations/train.json",
                # Its unlabelled slices may hold lesions, so there are no negatives.
                sampling=dict(policy="key_slices"),
            ),
            "luna16": dict(data_prefix=dict(img_path="luna16"), ann_file="luna16/annotations/train.json"),
            "lits": dict(data_prefix=dict(img_path="lits"), ann_file="lits/annotations/train.json"),
            "nih-ln": dict(data_prefix=dict(img_path="nih-ln"), ann_file="nih-ln/annotations/train.json"),
        },
    ),
)
# The paper tunes on 200 fully annotated sub-volumes; this validation is on key slices with the labels that there are.
val_dataloader = dict(
    dataset=dict(
        data_root=__data_root,
        data_prefix=dict(img_path="deeplesion"),
        ann_file="deeplesion/annotations/val.json",
    ),
)
# DeepLesion's fully annotated sub-volumes, for VolumeTestLoop.
test_dataloader = dict(
    dataset=dict(
        data_root=__data_root,
        data_prefix=dict(img_path="deeplesion"),
        ann_file="deeplesion/annotations/manual_test.json",
        sampling=dict(policy="all_slices"),
    ),
)
test_evaluator = dict(_delete_=True, type="VolumeFROCMetric", protocol="lens-3d")

# The miniature: four phantoms, each labelled as its dataset labels; the test has the complete truth, in 3D.
# Make them with: mmpluld phantom lens data/phantom-lens
twin_data = dict(
    train_dataloader=dict(
        sampler=dict(batch_size=8),
        dataset=dict(
            _delete_=True,
            shared=dict(
                pipeline=dict(
                    load=dict(num_threads=0),
                    body=None,
                    resize=None,
                    # Slices without lesions are cropped too, so that the sampler's proportion holds.
                    crop=dict(type="CropAtLesion", crop_size=(64, 64)),
                    # What the crop leaves of other lesions; a sample without any left stays a negative.
                    filter=dict(type="FilterAnnotations", min_gt_bbox_wh=(4, 4), keep_empty=False),
                    flip=dict(type="RandomFlip", prob=0.5),
                ),
            ),
        ),
    ),
)
twin_source = dict(
    _delete_=True,
    data_root="data/phantom-lens",
    test_dataloader=dict(dataset=dict(ann_file="deeplesion/truth/test_subvolumes.json")),
)
