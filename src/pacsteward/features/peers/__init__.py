"""Connections: the machines that we speak with, and those that would like to."""
