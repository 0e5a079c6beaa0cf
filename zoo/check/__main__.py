import sys

from zoo.check import main

if __name__ == "__main__":
    sys.exit(main())
