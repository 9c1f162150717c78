# LENS on DeepLesion alone with mined labels and its unlabelled slices: row (e) of Table II, last rows of Table IV.
_base_ = "lens-afp_densenet121_mined_9s_8e_deeplesion.py"

train_dataloader = dict(dataset=dict(datasets={"deeplesion": dict(sampling=dict(policy="all_slices"))}))
