"""Builders that publish prepared sets with tensorflow-datasets.

TensorFlow itself is never imported: the sets are written as ArrayRecord and
read as `tfds.data_source`.
"""
