# Proposals of four datasets, detections of DeepLesion's expert alone, mined labels: row (f) of Table II. Trained as
# lens-afp_densenet121_4datasets-mined.
_base_ = "lens-afp_densenet121_4datasets-mined_9s_8e_deeplesion.py"

model = dict(test_cfg=dict(rcnn=dict(experts=["deeplesion"])))
