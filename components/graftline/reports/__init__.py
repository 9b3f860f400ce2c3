"""HTML pages: templates, tables and charts as inline SVG."""
