"""What a run leaves on disk: checkpoints, and images as files."""
