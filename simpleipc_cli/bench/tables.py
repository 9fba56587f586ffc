"""A place held free."""


def to_csv(_report: object) -> str:
    return ""


def to_markdown(_report: object, _judged: object = (), _changes: object = None) -> str:
    return ""
