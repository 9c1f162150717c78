# Phantom twin of tsm_densenet121-fpn.py, as narrow and shallow as the A3D twin.
_base_ = "a3d_densenet121-fpn_phantom.py"

model = dict(backbone=dict(slice_mixer=dict(type="TSMMixer", fold_div=8)))
