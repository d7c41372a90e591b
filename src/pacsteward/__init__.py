"""Pacsteward: the imaging archive and all that its administrator needs around it."""

__version__ = "0.1.0"
