"""A second study measured again: small sets of images and a pretrained network."""
