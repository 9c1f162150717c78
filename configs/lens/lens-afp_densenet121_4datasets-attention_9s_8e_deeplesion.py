# LENS on four datasets with domain attention in the backbone; with mined labels, row "domain adaptation" of Table V.
# Adapters and reduction are those of the attention's own paper; where it sits is ours.
_base_ = "lens-afp_densenet121_4datasets_9s_8e_deeplesion.py"

model = dict(backbone=dict(domain_attention=dict(num_adapters=4, reduction=16)))
