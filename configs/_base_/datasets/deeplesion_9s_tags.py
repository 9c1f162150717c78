# DeepLesion as in deeplesion_9s.py with masks and tags, in batches of MULAN's size.
# Make the annotation files with: mmpluld convert deeplesion data/deeplesion --tags FILE --tag-ontology FILE
_base_ = "deeplesion_9s.py"

train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        pipeline=dict(
            # MULAN's code: in training a slice up to a quarter of the smallest diameter away replaces the key slice.
            load=dict(z_jitter=0.5),
            truth=dict(with_mask=True),
            tags=dict(type="LoadLesionTags", num_tags=171),
            pack=dict(type="PackLesionInputs"),
        ),
    ),
)
custom_hooks = [dict(type="TagStatisticsHook")]

# The miniature: lesion types as tags. Make the data with: mmpluld phantom twins data/phantom
twin_data = dict(num_tags=8)
