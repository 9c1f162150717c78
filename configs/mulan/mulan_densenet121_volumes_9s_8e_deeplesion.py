# MULAN tested on whole volumes: its row of Table II of LENS, in the folder of the four datasets.
_base_ = "mulan_densenet121_9s_8e_deeplesion.py"

__place = dict(data_root="data", data_prefix=dict(img_path="deeplesion"))
__slices = dict(policy="all_slices")
train_dataloader = dict(dataset=dict(**__place, ann_file="deeplesion/annotations/train.json"))
val_dataloader = dict(dataset=dict(**__place, ann_file="deeplesion/annotations/val.json"))
test_dataloader = dict(dataset=dict(**__place, ann_file="deeplesion/annotations/manual_test.json", sampling=__slices))
__rule = dict(link_score_thr=0.05, iou_thr=0.5, max_gap=0, score_rule="max", min_slices=1)
test_cfg = dict(_delete_=True, type="VolumeTestLoop", **__rule)
test_evaluator = dict(_delete_=True, type="VolumeFROCMetric", protocol="lens-3d")

# The miniature is trained as LENS on DeepLesion alone, so that what differs is the method: proposals from anchors, and
# masks, tags and refinement by tags beside the boxes.
twin = dict(
    data_root="data/phantom-lens",
    val_dataloader=dict(dataset=dict(ann_file="deeplesion/truth/val_key_slices.json")),
    test_dataloader=dict(dataset=dict(ann_file="deeplesion/truth/test_subvolumes.json")),
)
