"""The program `diffusion`, one file for each command; `commands.py` lists them."""
