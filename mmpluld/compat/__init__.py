"""Every difference between host versions, operating systems and optional libraries; nothing else probes for them.

The modules are imported by name, so that what needs no torch does not load it.
"""
