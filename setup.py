"""Links the launcher of ffmpeg as a program; all else about the package is in pyproject.toml."""

import sys
from functools import partial

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

PROGRAM = "app.platform.media._launcher"


class BuildExtensions(build_ext):
    def build_extension(self, ext: Extension) -> None:
        if ext.name != PROGRAM:
            super().build_extension(ext)
        elif sys.platform == "linux":
            link = self.compiler.link_shared_object
            self.compiler.link_shared_object = partial(self.compiler.link, self.compiler.EXECUTABLE)
            try:
                super().build_extension(ext)
            finally:
                self.compiler.link_shared_object = link


setup(cmdclass={"build_ext": BuildExtensions})
