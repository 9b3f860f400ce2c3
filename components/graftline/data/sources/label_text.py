"""Labels and names as people see them: equal if they look equal, and short enough to print."""

import re
import unicodedata

CLIP = 100


def words_of(text: str) -> frozenset[str]:
    """The words of a text, for tables of words in the source."""
    return frozenset(text.split())


# Zero-width and direction marks: no reader sees them. Joiners (200C, 200D) stay between letters,
# where some scripts need them, and between the parts of one emoji, and go at the ends.
_MARKS = dict.fromkeys(
    (
        *(0x00AD, 0x034F, 0x061C, 0x180E, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF),
        *range(0x202A, 0x202F),
        *range(0x2061, 0x2065),
        *range(0x2066, 0x2070),
    )
)
_JOINERS = "‌‍"


def clean_text(text: str) -> str:
    """The text in NFC, without marks that nobody sees and without blanks around it."""
    if text.isascii():
        return text.strip()
    plain = unicodedata.normalize("NFC", text.translate(_MARKS))
    if any(joiner in plain for joiner in _JOINERS):
        joined = "(?:[^\\W\\d_]|[\u2190-\u2bff\ufe0f\U0001f000-\U0001faff])"
        plain = re.sub(f"(?<!{joined})[{_JOINERS}]+|[{_JOINERS}]+(?!{joined})", "", plain)
        plain = re.sub(f"(?<=[\x00-\u024f])[{_JOINERS}]+(?=[\x00-\u024f])", "", plain)
    return plain.strip()


def controls(text: str) -> bool:
    """Whether there are characters in it that are no text, as in numbers stored as bytes."""
    return any(one < " " and one not in "\t\r\n" for one in text)


def on_one_line(text: str) -> str:
    """The text with a blank for each character that would break the line, or steer a terminal."""
    return "".join(one if one.isprintable() else " " for one in text)


def clip(text: str, limit: int = CLIP) -> str:
    """The text, or its beginning with an ellipsis where it is too long to be printed."""
    return text if len(text) <= limit else text[: limit - 1] + "…"
