"""log P(X) of held-out data: estimators, their tables of log-weights, and the verdict."""
