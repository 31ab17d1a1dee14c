"""Canaries with faults made on purpose, under load."""
