"""Objects as bytes: values, functions, exceptions."""
