"""Every difference between host versions, operating systems and optional libraries; nothing else in this package probes.

The modules are imported by name, so that what needs no torch does not load it.
"""
