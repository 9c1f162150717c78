# Start of the miniature of LENS with domain attention.
_base_ = "trunk-lens_densenet121_9s.py"

model = dict(backbone=dict(domain_attention=dict(num_adapters=4, reduction=16)))
