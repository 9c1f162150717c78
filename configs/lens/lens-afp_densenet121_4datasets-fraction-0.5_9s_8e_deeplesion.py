# 50 % of the patients of the three datasets that label one kind of lesion: Figure 7.
_base_ = "lens-afp_densenet121_4datasets_9s_8e_deeplesion.py"

__part = dict(fraction=0.5)
train_dataloader = dict(dataset=dict(datasets={"luna16": __part, "lits": __part, "nih-ln": __part}))
