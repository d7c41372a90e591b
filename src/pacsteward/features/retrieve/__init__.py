"""Giving images out."""
