"""Where images come from: folders, tables, box annotations, archives, buckets, torchvision.

Nothing is imported here: the processes that decode images need `found` alone, and start sooner.
"""
