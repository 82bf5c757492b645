"""Conversations from files and named data sets, for training and for answering them: rows.py, columns.py, split.py."""
