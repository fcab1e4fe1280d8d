"""What makes tables of log-weights: draws of a guide or the prior, annealing, a grid."""
