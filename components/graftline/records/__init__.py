"""Small JSON contracts between steps, each with its reader, writer and schema version."""
