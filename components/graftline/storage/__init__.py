"""Where bytes live: an S3 prefix or a folder, behind one interface."""
