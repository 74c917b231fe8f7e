"""From a folder of labelled images to packed shards: ingest, clean, validate, split, prepare."""
