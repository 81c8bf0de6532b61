"""The ways in which messages travel between ranks."""
