# Phantom twin of mulan_densenet121_refine-features_9s_8e_deeplesion.py. Its training crops at random, so the place of a
# box says little here.
_base_ = "mulan_densenet121_9s_phantom.py"

model = dict(roi_head=dict(refine_head=dict(features=["box", "z", "demographics"])))
