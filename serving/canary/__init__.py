"""A second version of a model beside the one that is served, on a share of its requests."""
