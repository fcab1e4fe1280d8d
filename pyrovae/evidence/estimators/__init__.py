"""Estimators of log p(x) as objects: a file for each kind, and what all of them share."""
