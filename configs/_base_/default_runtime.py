default_scope = "mmpluld"

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=20),
    param_scheduler=dict(type="ParamSchedulerHook"),
    # Peers keep every epoch and do not say which one they report; we keep the last three and the best in validation.
    checkpoint=dict(type="SafeCheckpointHook", interval=1, max_keep_ckpts=3, save_best="froc/avg"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method="fork", opencv_num_threads=0),
    dist_cfg=dict(backend="nccl"),
)
# In a multi-GPU run every BatchNorm becomes a SyncBatchNorm, as hard-coded in the A3D code.
sync_bn = "torch"

visualizer = dict(type="DetLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer")
log_processor = dict(type="LogProcessor", window_size=50, by_epoch=True)
log_level = "INFO"

randomness = dict(seed=0)  # peers set no seed
load_from = None
resume = False
