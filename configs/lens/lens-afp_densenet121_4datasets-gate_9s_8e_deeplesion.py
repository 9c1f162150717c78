# LENS on four datasets with a gate that learns how far to trust each expert on a region. Not in the paper.
_base_ = "lens-afp_densenet121_4datasets_9s_8e_deeplesion.py"

model = dict(roi_head=dict(gate=dict(type="ExpertGate", lr=1.0)))
