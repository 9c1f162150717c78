# MULAN: 2.5D DenseNet-121 and region proposal network as in lens_densenet121_rpn.py, heads for box, mask and tags, and
# a layer that refines scores by tags.
# Numbers: published MULAN code (config.yml, roi_heads) unless a line says otherwise.
_base_ = "lens_densenet121_rpn.py"

__num_tags = 171  # LesaNet's terms; `num_tags` at the top of a config that inherits this one sets all three
__region_features = dict(
    type="SingleRoIExtractor",
    roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=2),
    out_channels=512,
    featmap_strides=[4],
)
__balanced = dict(type="BalancedTagLoss", loss_weight=1.0, max_weight=300.0)

model = dict(
    type="MaskRCNN",
    data_preprocessor=dict(pad_mask=True),
    roi_head=dict(
        type="MulanRoIHead",
        mask_roi_extractor=dict(
            type="SingleRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=2),
            out_channels=512,
            featmap_strides=[4],
        ),
        mask_head=dict(
            type="LesionMaskHead",  # 4 convolutions, transposed convolution, 28 x 28
            num_convs=4,
            in_channels=512,
            conv_out_channels=256,
            num_classes=1,  # the published head has a background channel too, which it never uses
            loss_mask=dict(type="MaskDiceLoss", loss_weight=1.0, eps=0.01),
        ),
        tag_roi_extractor=__region_features,
        tag_head=dict(
            type="TagHead",
            num_tags=__num_tags,
            in_channels=512,
            roi_feat_size=7,
            fc_out_channels=1024,
            loss_tag=__balanced,
            loss_hard=dict(type="RelationalHardTagLoss", num_pairs=10000, power=2.0, loss_weight=1.0),
        ),
        refine_head=dict(
            type="RefineHead",
            num_tags=__num_tags,
            num_classes=1,
            features=[],  # as in the released model; the paper's best has ["box", "z", "demographics"]
            loss_cls=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
            loss_tag=__balanced,
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=28)),
    test_cfg=dict(rcnn=dict(mask_thr_binary=0.5)),
)

# The miniature, with the eight lesion types as tags.
twin_model = dict(
    num_tags=8,
    model=dict(
        roi_head=dict(
            mask_roi_extractor=dict(out_channels=64),
            mask_head=dict(in_channels=64, conv_out_channels=32),
            tag_roi_extractor=dict(out_channels=64),
            # As many pairs for each tag as in the paper's model.
            tag_head=dict(in_channels=64, fc_out_channels=128, loss_hard=dict(num_pairs=468)),
        ),
    ),
)
