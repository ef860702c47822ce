"""The admin: every model, seen and managed."""
