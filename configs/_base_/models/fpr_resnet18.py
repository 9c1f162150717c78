# 3D false-positive reduction of LENS: ResNet-18 on patches, 1x3x3 kernels in blocks 1 to 3 and 3x3x3 in block 4, RoI
# pooling from all four blocks. What the paper leaves open is "ours".
model = dict(
    type="PatchClassifier",
    data_preprocessor=dict(type="BaseDataPreprocessor"),  # the window transform already yields [-1, 1]
    backbone=dict(
        type="InflatedResNet",
        in_channels=1,  # ours
        channels=64,
        num_blocks=(2, 2, 2, 2),
        depths=(1, 1, 1, 3),
        z_strides=(1, 1, 1, 2),  # ours
        stem_stride=2,
        stem_pool=True,
        # The paper starts from ImageNet: dict(type="ResNetImageNet", checkpoint="<file or URL>").
        init_cfg=None,
    ),
    roi_size=(2, 3, 3),  # ours, and the next three
    sampling_ratio=2,
    fc_channels=128,
    loss_cls=dict(type="FocalLoss", use_sigmoid=True, gamma=2.0, alpha=0.5, loss_weight=1.0),
)

# The miniature: narrower, shallower, and without the stem's strides: the phantom's pixels are 3.5 times as large.
twin_model = dict(
    model=dict(
        backbone=dict(channels=12, num_blocks=(1, 1, 1, 1), stem_stride=1, stem_pool=False),
        fc_channels=32,
    ),
)
