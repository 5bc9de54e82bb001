"""`python -m avatar3d` is the same as the command `avatar3d`."""

from avatar3d.cli import main

if __name__ == "__main__":
    main()
