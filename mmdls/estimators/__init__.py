"""Estimators with scikit-learn's manners; the only place where tables become tensors."""
