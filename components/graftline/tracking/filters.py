"""Filters of MLflow's searches, with names quoted as its grammar takes them."""

from graftline.errors import ConfigurationError


def equals(field: str, value: str) -> str:
    """The condition that a field has a value, such as ``name = 'digits'``.

    MLflow's grammar has no escape: a value with one kind of quotes goes into the other kind.

    Raises:
        ConfigurationError: The value holds both kinds, so no filter can name it.
    """
    if "'" in value and '"' in value:
        raise ConfigurationError(
            f"The name {value!r} holds both kinds of quotes.",
            why="MLflow cannot search for it.",
            fix="Use a name without quotes.",
        )
    return f'{field} = "{value}"' if "'" in value else f"{field} = '{value}'"
