# MULAN's detector alone: without masks, tags and refinement.
_base_ = [
    "../_base_/models/lens_densenet121_rpn.py",
    "../_base_/datasets/deeplesion_9s.py",
    "../_base_/schedules/mulan_8e.py",
    "../_base_/default_runtime.py",
]

# As in deeplesion_9s_tags.py.
load_slices = dict(type="LoadSliceStack", num_slices=9, slice_gap_mm=2.0, interp="exact", z_jitter=0.5)
train_pipeline = [load_slices, *_base_.train_pipeline[1:]]
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=train_pipeline))
