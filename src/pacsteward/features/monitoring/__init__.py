"""Monitoring: is it well, and by what figures can one tell."""
