# LENS on four datasets with mined labels and domain attention in the backbone: row "proposed + domain adaptation" of
# Table V.
_base_ = "lens-afp_densenet121_4datasets-mined_9s_8e_deeplesion.py"

model = dict(backbone=dict(domain_attention=dict(num_adapters=4, reduction=16)))
