# LesaNet's network: VGG-16 with batch norm, features of five depths, an embedding of 256 numbers and 171 tags.
# Numbers: published LesaNet code (network_vgg.py, config.yml) unless a line says otherwise. It is trained from random
# weights: that code reads ImageNet's and does not use them.
__num_tags = 171

model = dict(
    type="LesionEmbedder",
    data_preprocessor=dict(type="BaseDataPreprocessor"),
    in_channels=3,
    widths=(64, 128, 256, 512, 512),
    depths=(2, 2, 3, 3, 3),
    num_boxed=3,
    pool_size=5,
    stage_channels=256,
    embed_channels=256,
    num_tags=__num_tags,
    norm_cfg=dict(type="BN"),
    loss_tag=dict(type="BalancedTagLoss", loss_weight=1.0, max_weight=300.0),
    loss_hard=dict(type="RelationalHardTagLoss", num_pairs=10000, power=2.0, loss_weight=1.0),
    loss_triplet=dict(
        type="LesionTripletLoss",
        margin=0.1,
        num_triplets=5000,
        identity_share=0.0,
        hard_share=0.5,  # ours, of no account without triplets by identity
        loss_weight=5.0,
    ),
)

# The miniature: narrow and, for patches of 48 pixels, with one pooling less.
twin_model = dict(
    num_tags=8,
    model=dict(
        widths=(12, 24, 32, 48),
        depths=(2, 2, 2, 2),
        num_boxed=3,
        pool_size=4,
        stage_channels=48,
        embed_channels=64,
        loss_hard=dict(num_pairs=468),
    ),
)
