"""The benchmark: what does a task cost here, and what elsewhere?"""
