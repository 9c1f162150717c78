# The four datasets of lens_4datasets_9s.py, tested on the held-out fifth of LUNA16: LENS, Figure 7.
# `mmpluld convert luna16 data/luna16` splits 80 to 20 at random, which is the paper's share; its split is not known.
_base_ = "lens_4datasets_9s.py"

test_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path="luna16"), ann_file="luna16/annotations/test.json"),
)
test_evaluator = dict(protocol="centre-3d")

# The phantom has such a part too.
twin_source = dict(test_dataloader=dict(dataset=dict(ann_file="luna16/annotations/test.json")))
