# Start of the AlignShift rows' miniatures.
_base_ = ["../_base_/models/alignshift_densenet121-fpn.py", "../_base_/trunk.py"]

model = dict(
    _delete_=True,
    type="OrganSegmentor",
    data_preprocessor={{_base_.model.data_preprocessor}},
    backbone={{_base_.model.backbone}},
    in_channels={{_base_.model.neck.in_channels}},
)
twin_model = dict(
    _delete_=True,
    model=dict(backbone={{_base_.twin_model.model.backbone}}, in_channels={{_base_.twin_model.model.neck.in_channels}}),
)
