# LesaNet that also tells lesions of one kind apart: each mark is seen twice, on slices and at places a little apart,
# and the two views are to be nearer than another lesion of the same volume or of another patient.
_base_ = "lesanet_vgg16_15e_deeplesion.py"

model = dict(loss_triplet=dict(identity_share=0.8))
train_dataloader = dict(
    sampler=dict(_delete_=True, type="PatientSampler", views=2),
    dataset=dict(
        pipeline=dict(
            load=dict(z_jitter=0.5),
            resize=dict(ratio_range=(0.9, 1.1)),
            crop=dict(shift_px=8),
        ),
    ),
)
twin = dict(train_dataloader=dict(dataset=dict(pipeline=dict(crop=dict(shift_px=3)))))
