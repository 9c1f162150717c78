# lens_4datasets_9s.py with mined labels of DeepLesion. Slices with neither lesion nor mined label are negatives, on
# which uncertain lesions are ignored. Make the file with `mmpluld mine`.
_base_ = "lens_4datasets_9s.py"

train_dataloader = dict(
    dataset=dict(
        datasets={
            "deeplesion": dict(ann_file="deeplesion/annotations/train_mined.json", sampling=dict(policy="all_slices"))
        }
    )
)
# As many samples of DeepLesion with lesions in an epoch as without mined labels; slices without come on top. Counted on
# the phantoms of `mmpluld phantom lens`: 388 key slices, filled up to batches of 8. A test holds the two together.
twin_data = dict(train_dataloader=dict(sampler=dict(lengths=dict(deeplesion=392))))
