# Phantom twin of mulan_densenet121_volumes_9s_8e_deeplesion.py, on DeepLesion's part of the phantoms of LENS.
# Make them with: mmpluld phantom lens data/phantom-lens
_base_ = "mulan_densenet121_9s_phantom.py"
data_root = "data/phantom-lens"

place = dict(data_root=data_root, data_prefix=dict(img_path="deeplesion"))
train_dataloader = dict(dataset=dict(**place, ann_file="deeplesion/annotations/train.json"))
val_dataloader = dict(dataset=dict(**place, ann_file="deeplesion/truth/val_key_slices.json"))
test_dataloader = dict(
    dataset=dict(**place, ann_file="deeplesion/truth/test_subvolumes.json", sampling=dict(policy="all_slices")),
)
test_cfg = dict(
    _delete_=True, type="VolumeTestLoop", link_score_thr=0.05, iou_thr=0.5, max_gap=0, score_rule="max", min_slices=1
)
test_evaluator = dict(_delete_=True, type="VolumeFROCMetric", protocol="lens-3d")
# As many epochs as the twins of LENS.
train_cfg = dict(max_epochs=9)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=30),
    dict(type="CosineAnnealingLR", T_max=9, begin=0, end=9, by_epoch=True, convert_to_iter_based=True),
]
