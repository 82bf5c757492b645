"""What fits: memory and what is computed twice, several processes, weights that they share out."""
