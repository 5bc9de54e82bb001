"""Video and sound of strangers, decoded in a process of its own.

`decoded` is the only thing that others use. It asks a small server process, started at the first
use, which has loaded PyAV and nothing else and makes a copy of itself for every file (fork). The
copy has limits on memory, processor time, open files and writing, and hands over through shared
memory what it decodes; see `client.py` for this side, `server.py` for that, `pictures.py` and
`sounds.py` for what it does. A fault of a decoder, found by a damaged file or by one that was made
to find it, is the end of that copy, and one sentence here.
"""

from avatar3d.io.decoder.client import decoded

__all__ = ["decoded"]
