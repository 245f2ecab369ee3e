"""What a config and a work directory stand for."""
