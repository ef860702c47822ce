"""Kill, stop and restart everything under load, and look whether anything was lost or left behind.

`plan` says what is struck and when, `installation` and `engine` are what is struck, `clients` put the load on it and
keep books, `witness` counts from outside what really ran, `verdict` compares, `run` puts them together.
"""
