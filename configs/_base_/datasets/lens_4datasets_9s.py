# The four datasets of LENS: DeepLesion, and LUNA16, LiTS and NIH-LN, which label one kind of lesion each. Preparation
# as in deeplesion_9s.py. A new dataset is one more entry of train_datasets.
# Make the annotation files with: mmpluld convert deeplesion data/deeplesion, and so on for luna16, lits, nih-ln; those
# of the test with: mmpluld convert deeplesion-3d data/deeplesion --boxes FILE
_base_ = "deeplesion_9s.py"
data_root = "data"
batch_size = 4  # of one dataset; LENS, sec. VI-B
meta_keys = (*_base_.meta_keys, "dataset")

pack = dict(type="PackDetInputs", meta_keys=meta_keys)
train_pipeline = [*_base_.train_pipeline[:-1], pack]
test_pipeline = [*_base_.test_pipeline[:-1], pack]

train_datasets = [
    dict(
        type="CTLesionDataset",
        data_root=data_root,
        data_prefix=dict(img_path="deeplesion"),
        ann_file="deeplesion/annotations/train.json",
        # Its unlabelled slices may hold lesions, so there are no negatives.
        sampling=dict(policy="key_slices"),
        pipeline=train_pipeline,
    ),
    dict(
        type="CTLesionDataset",
        data_root=data_root,
        data_prefix=dict(img_path="luna16"),
        ann_file="luna16/annotations/train.json",
        sampling=dict(policy="all_slices"),
        pipeline=train_pipeline,
    ),
    dict(
        type="CTLesionDataset",
        data_root=data_root,
        data_prefix=dict(img_path="lits"),
        ann_file="lits/annotations/train.json",
        sampling=dict(policy="all_slices"),
        pipeline=train_pipeline,
    ),
    dict(
        type="CTLesionDataset",
        data_root=data_root,
        data_prefix=dict(img_path="nih-ln"),
        ann_file="nih-ln/annotations/train.json",
        sampling=dict(policy="all_slices"),
        pipeline=train_pipeline,
    ),
]
train_dataloader = dict(
    batch_size=batch_size,
    sampler=dict(
        _delete_=True,
        type="LesionSampler",
        one_per_lesion=True,
        positive_ratio=2,
        batch_size=batch_size,
        interleave="shuffled",  # the paper leaves the order open
    ),
    dataset=dict(_delete_=True, type="ConcatDataset", ignore_keys=["dataset"], datasets=train_datasets),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path="deeplesion"),
        ann_file="deeplesion/annotations/val.json",
        pipeline=test_pipeline,
    ),
)
# DeepLesion's fully annotated sub-volumes, for VolumeTestLoop.
test_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        data_prefix=dict(img_path="deeplesion"),
        ann_file="deeplesion/annotations/manual_test.json",
        sampling=dict(policy="all_slices"),
        pipeline=test_pipeline,
    ),
)
test_evaluator = dict(_delete_=True, type="VolumeFROCMetric", protocol="lens-3d")
