"""Networks for sequences such as actions: a UNet, a transformer and a residual MLP over time."""
