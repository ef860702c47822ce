"""System checks: misconfiguration is said at start, with an id, before anybody's request finds it."""
