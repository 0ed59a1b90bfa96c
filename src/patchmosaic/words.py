"""Numbers among words."""


def counted(count: int, one: str, several: str = "") -> str:
    """1 picture, 2 pictures."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"
