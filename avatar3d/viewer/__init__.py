"""Looking at an avatar: the web page that `export` writes, and a live server."""
