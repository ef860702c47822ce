"""Sessions, executions and time-outs: models, services, API, admin, commands and the reaper."""
