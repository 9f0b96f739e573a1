"""Columns of tables: reading, scaling, encoding, choosing, and making those of several centres comparable."""
