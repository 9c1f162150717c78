# As phantom.py, tested on whole volumes as radam_8e.py does.
_base_ = "phantom.py"

test_cfg = dict(
    _delete_=True, type="VolumeTestLoop", score_thr=0.05, iou_thr=0.5, max_gap=0, score_rule="max", min_slices=1
)
