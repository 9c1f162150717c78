# Uncertain lesions, most of them mined, as ordinary ones: row "ignored as ground truth" of Table V.
_base_ = "lens-afp_densenet121_4datasets-mined_9s_8e_deeplesion.py"

train_dataloader = dict(dataset=dict(datasets={"deeplesion": dict(uncertain="truth")}))
