"""Start proxy, app and reaper on one machine and keep them running. Standard library only."""
