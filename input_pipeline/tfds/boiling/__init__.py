"""The boiling plate as a tensorflow-datasets builder."""
