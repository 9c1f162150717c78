# MULAN tested on whole volumes: its row of Table II of LENS, in the folder of the four datasets.
_base_ = "mulan_densenet121_9s_8e_deeplesion.py"
data_root = "data"

place = dict(data_root=data_root, data_prefix=dict(img_path="deeplesion"))
train_dataloader = dict(dataset=dict(**place, ann_file="deeplesion/annotations/train.json"))
val_dataloader = dict(dataset=dict(**place, ann_file="deeplesion/annotations/val.json"))
test_dataloader = dict(
    dataset=dict(**place, ann_file="deeplesion/annotations/manual_test.json", sampling=dict(policy="all_slices")),
)
test_cfg = dict(
    _delete_=True, type="VolumeTestLoop", link_score_thr=0.05, iou_thr=0.5, max_gap=0, score_rule="max", min_slices=1
)
test_evaluator = dict(_delete_=True, type="VolumeFROCMetric", protocol="lens-3d")
