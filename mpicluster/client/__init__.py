"""The client: what the user's script talks to."""
