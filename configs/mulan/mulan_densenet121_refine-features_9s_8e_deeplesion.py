# MULAN whose refining layer also sees where the lesion is and of whom: the best row of the published logs.
_base_ = "mulan_densenet121_9s_8e_deeplesion.py"

model = dict(roi_head=dict(refine_head=dict(features=["box", "z", "demographics"])))
