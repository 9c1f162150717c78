# Partial-label paper, learning-rate study: 0.02, which diverged there and is the default here, so that at the paper's
# size this is pluld-a3d. The miniature differs: it has SGD as the study has, not AdamW.
_base_ = "pluld-a3d_densenet121-fpn_7s_20e_deeplesion.py"

twin = dict(optim_wrapper=dict(optimizer=dict(_delete_=True, type="SGD", lr=0.02, momentum=0.9, weight_decay=1e-4)))
