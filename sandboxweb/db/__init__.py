"""Database backends of Django's, changed where our use of them asks for it."""
