"""Where the cells of a sweep run. Each runner is given the work to do, ``run_cell``."""
