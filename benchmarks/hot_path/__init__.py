"""CPU time of a request besides decoding and stages."""
