# DeepLesion as in deeplesion_9s.py with masks and tags, in batches of MULAN's size.
# Make the annotation files with: mmpluld convert deeplesion data/deeplesion --tags FILE --tag-ontology FILE
_base_ = "deeplesion_9s.py"

# MULAN's code: in training a slice up to a quarter of the smallest diameter away stands in for the key slice.
load_slices = dict(type="LoadSliceStack", num_slices=9, slice_gap_mm=2.0, interp="exact", z_jitter=0.5)
load_truth = [
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="LoadLesionTags", num_tags=171),
]
pack_tags = dict(type="PackLesionInputs", meta_keys=(*_base_.meta_keys, "body_context"))
pack = dict(type="PackDetInputs", meta_keys=(*_base_.meta_keys, "body_context"))

train_pipeline = [load_slices, *load_truth, *_base_.train_pipeline[2:-1], pack_tags]
test_pipeline = [*_base_.test_pipeline[:-1], pack]

train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
custom_hooks = [dict(type="TagStatisticsHook")]
