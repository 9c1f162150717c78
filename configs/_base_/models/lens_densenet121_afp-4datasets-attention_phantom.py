# Phantom twin of lens_densenet121_afp-4datasets-attention.py.
_base_ = "lens_densenet121_afp-4datasets_phantom.py"

model = dict(backbone=dict(domain_attention=dict(num_adapters=4, reduction=16)))
