# TSM detector: the A3D detector with a shift by one slice in place of the learned fusion.
# Numbers: published A3D code (densenet_tsm.py, truncated_densenet3d_tsm.py), but for the start of the convolutions that
# join the slices: Kaiming as in A3D, where that code's loop misses them.
_base_ = "a3d_densenet121-fpn.py"

model = dict(backbone=dict(slice_mixer=dict(type="TSMMixer", fold_div=8)))
