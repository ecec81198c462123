"""What the tasks do."""


def greet(name):
    return f"hello {name}"
