"""The scheduler: which task runs where. It never sees a value and never runs a user's function."""
