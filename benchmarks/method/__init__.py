"""What the trained rows of a table show: what a teacher adds to each exit, what early exit keeps of it."""
