"""How a source is read, as the steps that list it take it: ingest and watch read it alike."""

import re
from typing import TYPE_CHECKING, Literal

from pydantic import field_validator

from graftline.errors import ConfigurationError
from graftline.settings import Section

if TYPE_CHECKING:
    from graftline.data.sources.base import Columns, Reading


class SourceSettings(Section):
    """The keys of ``data`` that say how the source is read."""

    format: Literal["auto", "folders", "table", "shards"] = "auto"
    """`folders`: a folder for each class. `table`: a CSV file with an image and a label column.
    `shards`: WebDataset tar files. `auto` looks and says what it found."""
    image_column: str = "image"
    """Table only: the column with the image's path, relative to the table, or its URI."""
    label_column: str = "label"
    """Table only: the column with the label."""
    split_column: str | None = "split"
    """Table only: the column with `train`, `val` or `test`. It is used if the table has it; `null`
    ignores it."""
    group_column: str | None = None
    """Table only: images with equal values in this column (a patient, a camera, a day) share one
    split. Without it, only near-duplicates are kept together."""
    attributes: tuple[str, ...] = ()
    """Table only: columns kept with each image; the evaluation is sliced by them."""
    layout: str = "auto"
    """What each level of folders is, from the source down: `class`, `split`, `group` (a patient, a
    site) or `*` (no meaning), as in `split/class` or `group/class`. `auto` decides from all
    folders, says what it found, and stops where two readings fit."""
    exclude: tuple[str, ...] = ()
    """Folders and files to leave out: names or patterns such as `docs` or `*/old/*`."""
    similar_labels: Literal["auto", "merge", "refuse", "keep"] = "auto"
    """Labels that look the same. `auto` merges what differs only in invisible characters and
    refuses what differs by case, blanks or look-alike letters (`Cat`, `big_cat`); `merge` merges
    both, `refuse` refuses both, `keep` treats what differs visibly as different classes. `keep`
    also takes `cat|dog` as a class of its own; the others refuse such labels."""

    label_pattern: str = ""
    """For images whose names hold the class (`cat.7.jpg`): a regular expression, whose first group
    is the label in the file's name, as `'^(\\D+?)[ _.()-]*\\d'`. Folders then state only splits."""

    @field_validator("label_pattern")
    @classmethod
    def _with_group(cls, value: str) -> str:
        try:
            groups = re.compile(value).groups
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression: {error}") from error
        if value and groups < 1:
            raise ValueError(f"{value!r} has no group: put the label's part into (...)")
        return value

    @field_validator("layout")
    @classmethod
    def _levels(cls, value: str) -> str:
        from graftline.data.sources.layouts.layout import parse

        try:
            parse(value)
        except ConfigurationError as error:
            raise ValueError(f"{error.why}. {str(error.fix).rstrip('.')}") from error
        return value

    @property
    def columns(self) -> "Columns":
        """The names of a table's columns."""
        from graftline.data.sources.base import Columns

        names = self.image_column, self.label_column, self.split_column, self.group_column
        return Columns(*names, self.attributes)

    @property
    def reading(self) -> "Reading":
        """What is fixed of how folders and labels are read."""
        from graftline.data.sources.base import Reading

        return Reading(self.layout, self.exclude, self.similar_labels, self.label_pattern)
