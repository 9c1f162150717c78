# LENS for one dataset that mines unmarked lesions while it is trained, with a teacher that is the student's moving
# average. Not in the paper.
_base_ = "lens_densenet121_afp.py"

model = dict(
    _delete_=True,
    type="MeanTeacherDetector",
    detector={{_base_.model}},
    begin=0.2,  # ours
    sure_thr=0.7,
    doubtful_thr=0.3,
)
# Statistics of batch normalisation, which are trained, are averaged too.
custom_hooks = [dict(type="MeanTeacherHook", momentum=0.001, skip_buffer=False)]
# The miniature has a thirtieth of the steps.
twin_model = dict(
    _delete_=True,
    model=dict(detector={{_base_.twin_model.model}}),
    custom_hooks=[dict(type="MeanTeacherHook", momentum=0.01, skip_buffer=False)],
)
