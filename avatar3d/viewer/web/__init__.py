"""Sources of the self-contained web viewer; `avatar3d.export.html` puts them into one page."""
