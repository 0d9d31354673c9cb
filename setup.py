"""Put the measured results into the package; all else about it stands in pyproject.toml."""

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithResults(build_py):
    """Copy `data/` to `batchscaling/measured/`; an editable install reads it where it is."""

    def run(self):
        """Build the package."""
        super().run()
        if not self.editable_mode:
            self.copy_tree("data", f"{self.build_lib}/batchscaling/measured")


setup(cmdclass={"build_py": BuildWithResults})
