import sys

from randla.cli import main

if __name__ == "__main__":
    sys.exit(main())
