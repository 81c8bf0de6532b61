"""The worker: it holds values, fetches inputs, and has its slots run tasks."""
