# The four datasets of lens_4datasets_9s.py, tested on the held-out fifth of NIH-LN: LENS, Figure 7.
# `mmpluld convert nih-ln data/nih-ln` splits 80 to 20 at random, which is the paper's share; its split is not known.
_base_ = "lens_4datasets_9s.py"

test_dataloader = dict(
    dataset=dict(data_prefix=dict(img_path="nih-ln"), ann_file="nih-ln/annotations/test.json"),
)
test_evaluator = dict(protocol="centre-3d")

# The phantom has such a part too.
twin_source = dict(test_dataloader=dict(dataset=dict(ann_file="nih-ln/annotations/test.json")))
