# MULAN's detector alone: without masks, tags and refinement.
_base_ = [
    "../_base_/models/lens_densenet121_rpn.py",
    "../_base_/datasets/deeplesion_9s.py",
    "../_base_/schedules/mulan_8e.py",
    "../_base_/default_runtime.py",
]

# As in deeplesion_9s_tags.py.
train_dataloader = dict(batch_size=8, dataset=dict(pipeline=dict(load=dict(z_jitter=0.5))))
