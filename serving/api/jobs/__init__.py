"""Jobs in the API: receiving, classifying and answering what `serving.jobs` stores and runs."""
