# Phantom twin of a3d_densenet121-fpn_paper_7s_20e_deeplesion.py.
_base_ = [
    "../_base_/models/a3d_densenet121-fpn_phantom.py",
    "../_base_/datasets/phantom_7s_paper.py",
    "../_base_/schedules/phantom_paper.py",
    "../_base_/default_runtime.py",
]
