# Uncertain lesions as ordinary ones: row "ignored as ground truth" of Table V. It says most with mined labels, most of
# which are uncertain; of the datasets' own labels few are.
_base_ = "lens-afp_densenet121_4datasets_9s_8e_deeplesion.py"

train_dataloader = dict(dataset=dict(shared=dict(uncertain="truth")))
