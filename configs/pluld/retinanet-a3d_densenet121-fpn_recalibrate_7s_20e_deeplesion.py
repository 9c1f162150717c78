# RetinaNet on A3D; negatives with a high score are taken for lesions. Not a row of the paper.
_base_ = "../a3d/retinanet-a3d_densenet121-fpn_7s_20e_deeplesion.py"

model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True,
            type="BackgroundRecalibrationLoss",
            use_sigmoid=True,
            loss={{_base_.model.bbox_head.loss_cls}},
            threshold=0.3,  # a focal loss gives 0.3 where a quarter is marked
            warmup=0.25,
            limit=1.0,  # as many as marked ones; without a limit everything becomes a lesion
        )
    )
)
