"""Models of endpoints from tables: Cox regressions, trees, bagging."""
