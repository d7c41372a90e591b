"""Pacsteward: the imaging archive and all that its administrator needs around it."""
