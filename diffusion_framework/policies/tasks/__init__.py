"""Tasks to try policies on."""
