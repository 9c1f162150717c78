# Proposals of four datasets, detections of DeepLesion's expert alone: row (b) of Table II. Trained as
# lens-afp_densenet121_4datasets.
_base_ = "lens-afp_densenet121_4datasets_9s_8e_deeplesion.py"

model = dict(test_cfg=dict(rcnn=dict(experts=["deeplesion"])))
