"""The doctor: would a cluster work here, and what can be done if not?"""
