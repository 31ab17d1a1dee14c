"""The latency target: a simulation of the server's queue, and a benchmark that compares it with real runs."""
