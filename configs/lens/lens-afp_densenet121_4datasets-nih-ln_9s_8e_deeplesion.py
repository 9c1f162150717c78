# LENS on four datasets, tested on NIH-LN with that dataset's own expert: Figure 7.
_base_ = [
    "../_base_/models/lens_densenet121_afp-4datasets.py",
    "../_base_/datasets/lens_nih-ln_9s.py",
    "../_base_/schedules/radam_8e.py",
    "../_base_/default_runtime.py",
]

# The paper does not say who answers. The others would add findings that this dataset does not label.
model = dict(test_cfg=dict(rcnn=dict(experts=["nih-ln"])))
train_cfg = dict(val_begin=1000)  # never: the validation is on DeepLesion
