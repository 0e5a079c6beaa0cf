import sys

from zoo.check import main
from zoo.pipes import quietly

if __name__ == "__main__":
    sys.exit(quietly(main))
