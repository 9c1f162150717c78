# Start of the miniatures of LENS and MULAN.
_base_ = ["../_base_/models/lens_densenet121_afp.py", "../_base_/trunk.py"]

num_slices = 9
model = dict(
    _delete_=True,
    type="OrganSegmentor",
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    in_channels=(768, 1536, 3072),  # of all three images
)
twin_model = dict(_delete_=True, model=dict(backbone={{_base_.twin_model.model.backbone}}, in_channels=(156, 222, 255)))
