"""Makes the root file system of the image out of the unpacked program; `scripts/image` starts it."""
