# LesaNet that also tells lesions of one kind apart: each mark is seen twice, on slices, at places and in shades a bit
# apart, and the two views are to be nearer than another lesion of the same volume or of another patient. No numbers of
# lesions are needed, so that any patient can be embedded.
_base_ = "lesanet_vgg16_15e_deeplesion.py"

model = dict(loss_triplet=dict(identity_share=0.8, hard_share=0.7))
train_dataloader = dict(
    sampler=dict(_delete_=True, type="PatientSampler", views=2),
    dataset=dict(
        pipeline=dict(
            load=dict(z_jitter=1.0),
            jitter=dict(type="JitterHU", shift_hu=30, scale=0.2, noise_hu=20),
            turn=dict(type="ShiftScaleRotate", prob=0.8, shift_limit=0.0, scale_limit=0.0, rotate_limit=6),
            resize=dict(ratio_range=(0.85, 1.15)),
            crop=dict(shift_px=8),
        ),
    ),
)
twin = dict(train_dataloader=dict(dataset=dict(pipeline=dict(crop=dict(shift_px=3)))))
