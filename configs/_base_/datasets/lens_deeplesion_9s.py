# DeepLesion alone of lens_4datasets_9s.py, tested as there.
_base_ = "lens_4datasets_9s.py"

train_dataloader = dict(dataset=dict(datasets={"luna16": None, "lits": None, "nih-ln": None}))
