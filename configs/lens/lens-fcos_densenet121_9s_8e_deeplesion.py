# LENS on DeepLesion alone, with FCOS for proposals (as row "FCOS, 2 stages" of Table III, which has four datasets).
_base_ = [
    "../_base_/models/lens_densenet121_fcos.py",
    "../_base_/datasets/deeplesion_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]
