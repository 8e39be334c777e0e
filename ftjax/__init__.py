"""How many top layers of a pretrained CNN to unfreeze, and why."""
