"""The one program that runs inside a sandbox."""
