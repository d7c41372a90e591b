"""``python -m pacsteward``."""

from pacsteward.cli import main

if __name__ == "__main__":
    main()
