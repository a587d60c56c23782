"""Networks of sequences, such as actions: a U-Net, a transformer and a residual MLP over time."""
