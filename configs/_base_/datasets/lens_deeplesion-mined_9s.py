# lens_deeplesion_9s.py with mined labels, which lie on slices beside the key slices too: each lesion on one of its
# slices in an epoch. Make the file with `mmpluld mine`.
_base_ = "lens_deeplesion_9s.py"

train_dataloader = dict(
    dataset=dict(
        datasets={
            "deeplesion": dict(
                ann_file="deeplesion/annotations/train_mined.json", sampling=dict(policy="lesion_slices")
            )
        }
    )
)
# As many samples with lesions in an epoch as lens-longer has samples, which is as many as on four datasets; slices
# without lesions, where the config draws some, come on top.
twin_data = dict(train_dataloader=dict(sampler=dict(lengths=dict(deeplesion=920))))
