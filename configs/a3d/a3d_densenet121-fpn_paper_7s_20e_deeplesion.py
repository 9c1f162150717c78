# Partial-label paper, Table 1, row "A3D", with the data preparation and schedule that the paper states where the A3D
# code has others: window -1024 to 3071, flip as only augmentation, lr 0.002 with drops after 12 and 14 epochs.
_base_ = [
    "../_base_/models/a3d_densenet121-fpn.py",
    "../_base_/datasets/deeplesion_7s_paper.py",
    "../_base_/schedules/sgd_20e_paper.py",
    "../_base_/default_runtime.py",
]
