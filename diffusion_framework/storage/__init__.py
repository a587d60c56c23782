"""Files of a run: checkpoints, configs, images and animations."""
