# AlignShift detector: the A3D detector with a shift by 2 mm in place of the learned fusion.
# Numbers: published AlignShift code (densenet_align.py, truncated_densenet3d_alignshift.py).
_base_ = "a3d_densenet121-fpn.py"

model = dict(
    data_preprocessor=dict(type="ThicknessPreprocessor"),  # hands each sample's slice interval to the mixer
    backbone=dict(
        slice_mixer=dict(type="AlignShiftMixer", fold_div=8, ref_thickness_mm=2.0, zero_padding=False),
    ),
    test_cfg=dict(rcnn=dict(score_thr=1e-3)),
)
