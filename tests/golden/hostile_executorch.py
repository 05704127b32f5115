from tests.golden.hostile_case import Case
def cases():
    return iter(())
