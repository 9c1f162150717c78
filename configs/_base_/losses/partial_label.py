# The partial-label paper's loss for a proposal network: random mask and factor on the negatives of its cross entropy.
partial_label_loss = dict(
    type="PartialLabelLoss",
    use_sigmoid=True,  # the head looks for it here
    loss=dict(type="CrossEntropyLoss", use_sigmoid=True, loss_weight=1.0),
    neg_weight=0.6,  # lambda; the paper's best of 0..1, the released code has 0.9
    keep_prob=0.5,  # the released code keeps an anchor where a standard normal draw is positive
    pos_weight=1.0,  # the paper has none, the released code an unused one
    renorm_by_kept=False,  # the released code divides by all sampled anchors, the paper shows a plain sum
)
