"""The ``mmpluld`` command; no logic lives here."""
