"""Distillers that compare the relations between samples of a batch."""
