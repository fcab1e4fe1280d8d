"""What a latent space holds: its rate by dimension, its information, and ways through it."""
