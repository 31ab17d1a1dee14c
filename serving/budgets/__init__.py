"""Budgets of compute for each client: beyond its own, a client gets shallower answers."""
