"""How a source is read, as the steps that list it take it: ingest and watch read it alike."""

from typing import TYPE_CHECKING

from graftline.settings import Section

if TYPE_CHECKING:
    from graftline.data.sources.base import Columns, Reading


class SourceSettings(Section):
    """The keys of ``data`` that say how the source is read.

    The words are checked where the source is opened, together with what is found there.
    """

    format: str = "auto"
    """``auto``, ``folders``, ``table`` or ``shards``."""
    image_column: str = "image"
    """Of a table."""
    label_column: str = "label"
    """Of a table, or a key of a shard's JSON notes; so are the next three."""
    split_column: str | None = "split"
    """A stated split is obeyed; None leaves all to the hash."""
    group_column: str | None = None
    """Images of one group stay in one split."""
    attributes: tuple[str, ...] = ()
    """Further columns to keep."""
    layout: str = "auto"
    """What each level of folders is, or ``auto``."""
    exclude: tuple[str, ...] = ()
    """Patterns of folders and files that are left out."""
    similar_labels: str = "auto"
    """What to do where labels look the same: ``auto``, ``merge``, ``refuse`` or ``keep``."""

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

        return Reading(self.layout, self.exclude, self.similar_labels)
