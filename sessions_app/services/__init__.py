"""What the app does with sessions: the same functions for the API, the admin, commands, consumers and the reaper.

They combine the database and the proxy, take keyword arguments, raise `sessions_app.exceptions`, and hold neither a
transaction nor a connection of the database while the proxy works.
"""
