"""What the server observes of its models: drift, gears and shadow checks."""
