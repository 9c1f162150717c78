# Phantom twin of lens-afp_densenet121_longer_9s_9e_deeplesion.py.
_base_ = [
    "../_base_/models/lens_densenet121_afp_phantom.py",
    "../_base_/datasets/phantom_lens_deeplesion_9s.py",
    "../_base_/schedules/phantom_lens_longer.py",
    "../_base_/default_runtime.py",
]
