"""Reading CT scans into :class:`mmpluld.structures.CTVolume` and writing volumes and findings.

From outside to inside:

- ``readers`` chooses by the kind of file: ``nifti``, ``itk`` (with ``metaimage`` and ``nrrd``, whose headers are of
  ``text_header``), ``dicom``; ``promised`` compares what headers say with what files hold, before a voxel is read.
- ``images`` does the same with images of nibabel and SimpleITK.
- ``scans`` finds the scans of any input, with ``archives`` (zip) and ``dicomdir``; ``scan_choice`` says which are
  meant.
- ``dicom`` reads a folder in steps: ``dicom_files`` finds its images, ``dicom_series`` chooses one series that is one
  volume, ``dicom_geometry`` stacks its slices, ``dicom_pixels`` decodes them.
- ``hounsfield`` turns stored values into HU, ``hu_check`` tells whether they are any.
- ``array_store``, ``slice_sources`` and ``slice_stack`` read single slices of converted datasets.
- ``embeddings`` keeps what ``mmpluld embed`` makes of lesions, in ``shards``: one file of arrays a volume.
- ``faults`` turns what libraries say of damaged files into one line; ``writers`` writes volumes and tables.
"""

from __future__ import annotations

from mmpluld.io.images import volume_from_nibabel, volume_from_sitk
from mmpluld.io.readers import VOLUME_SUFFIXES, read_volume
from mmpluld.io.scan_choice import read_scan
from mmpluld.io.writers import write_findings_csv, write_volume

__all__ = [
    "VOLUME_SUFFIXES",
    "read_scan",
    "read_volume",
    "volume_from_nibabel",
    "volume_from_sitk",
    "write_findings_csv",
    "write_volume",
]
