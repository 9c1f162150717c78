"""Which organs the painter tells apart."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Organ"]


class Organ(IntEnum):
    """What a voxel belongs to, as written in organ maps.

    A lesion, or a look-alike of one, belongs to the organ that it lies in: the map does not tell where lesions are.
    """

    OUTSIDE = 0
    """Air around the patient, and the table."""
    FAT = 1
    """Fat, with the skin."""
    MUSCLE = 2
    """Muscle with the fat between its layers, and the diaphragm."""
    BONE = 3
    """Bone, with discs and cartilage."""
    SPINAL_CANAL = 4
    LUNG = 5
    AIRWAY = 6
    HEART = 7
    VESSEL = 8
    """Arteries and veins, also those inside lung and liver."""
    LIVER = 9
    GALLBLADDER = 10
    SPLEEN = 11
    PANCREAS = 12
    BOWEL = 13
    """Oesophagus, stomach and bowel with their contents."""
    KIDNEY = 14
    """Cortex, pyramids and renal sinus."""
    ADRENAL = 15
    BLADDER = 16
    GENITAL = 17
    """Uterus, or prostate and seminal vesicles."""
