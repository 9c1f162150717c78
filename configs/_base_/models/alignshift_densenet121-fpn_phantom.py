# Phantom twin of alignshift_densenet121-fpn.py, as narrow and shallow as the A3D twin.
_base_ = "a3d_densenet121-fpn_phantom.py"

model = dict(
    data_preprocessor=dict(type="ThicknessPreprocessor"),  # hands each sample's slice interval to the mixer
    backbone=dict(
        slice_mixer=dict(type="AlignShiftMixer", fold_div=8, ref_thickness_mm=2.0, zero_padding=False),
    ),
    test_cfg=dict(rcnn=dict(score_thr=1e-3)),
)
