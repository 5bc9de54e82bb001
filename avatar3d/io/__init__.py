"""Files in and out: atomic writes, video, images, sound, PLY."""
