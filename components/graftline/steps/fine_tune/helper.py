"""One of several processes that train together; run with its arguments as JSON."""

from graftline.steps.fine_tune.processes import main
from graftline.steps.fine_tune.training import help_training

if __name__ == "__main__":
    main(help_training)
