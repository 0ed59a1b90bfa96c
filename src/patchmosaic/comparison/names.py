"""How machines are called where people read."""

SHORT = {"is": "IS", "es": "ES", "ls": "LS", "els": "ELS", "bbels": "bbELS"}


def short(machine: str) -> str:
    """BbELS for bbels."""
    return SHORT.get(machine, machine)


def percent(share: float | None) -> str:
    """97.5 %, or a dash."""
    return "–" if share is None else f"{100 * share:.3g} %"
