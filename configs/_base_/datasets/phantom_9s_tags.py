# The phantom as in phantom_9s.py with masks, and lesion types as tags.
# Make it with: mmpluld phantom deeplesion data/phantom
#   mmpluld convert deeplesion data/phantom --tags data/phantom/tags.json --tag-ontology data/phantom/tag_ontology.csv
_base_ = "phantom_9s.py"

load_truth = [
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="LoadLesionTags", num_tags=8),
]
pack_tags = dict(type="PackLesionInputs", meta_keys=(*_base_.meta_keys, "body_context"))
pack = dict(type="PackDetInputs", meta_keys=(*_base_.meta_keys, "body_context"))
train_pipeline = [*_base_.train_pipeline[:2], *load_truth, *_base_.train_pipeline[3:-1], pack_tags]
test_pipeline = [*_base_.test_pipeline[:-1], pack]

train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
custom_hooks = [dict(type="TagStatisticsHook")]
