"""Shadow checks: a share of the samples that left early goes on to full depth after its answer."""
