"""Networks that predict what a diffusion added."""
