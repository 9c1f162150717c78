"""Findings of a scan as files that other programs read.

Each module writes one kind: ``luna16`` a table of candidates, ``markups`` regions of 3D Slicer, ``label_map`` NIfTI
label maps, ``coco`` COCO JSON; ``dicom_sr``, ``dicom_seg`` and ``rtstruct`` DICOM objects that refer to the scan's own
images, of which ``dicom_source`` reads what they need.
"""
