# LENS, sec. VI-B: RAdam, lr 1e-4, 8 epochs, x0.1 after 4 and 6. It states neither decay nor clipping; they are MULAN's.
_base_ = "mulan_8e.py"

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="RAdam", lr=1e-4, weight_decay=5e-4),
    paramwise_cfg=None,
)
auto_scale_lr = dict(base_batch_size=4)
# Whole volumes. The paper fixes the overlap of linked boxes and leaves the rest open.
test_cfg = dict(
    _delete_=True, type="VolumeTestLoop", link_score_thr=0.05, iou_thr=0.5, max_gap=0, score_rule="max", min_slices=1
)
