# Phantom twin of lens_densenet121_afp-4datasets-gate.py.
_base_ = "lens_densenet121_afp-4datasets_phantom.py"

model = dict(roi_head=dict(gate=dict(type="ExpertGate", lr=1.0)))
