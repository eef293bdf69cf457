"""What is compiled from C; all else about the package is in pyproject.toml.

Neither file uses Python's C API, so one wheel serves every CPython from 3.11 on. REGEN_PURE_WHEEL=1 leaves both out.
"""

import filecmp
import os
import shutil
import sys
import sysconfig
from functools import partial
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# A CPython without its global lock takes no wheels of the stable ABI.
STABLE_ABI = not sysconfig.get_config_var("Py_GIL_DISABLED")

# Convolutions for CPUs. Without a compiler the package is installed all the same, and torch computes, slower.
KERNELS = Extension(
    "worker.inference.cpu._kernels",
    sources=["worker/inference/cpu/kernels.c"],
    depends=[f"worker/inference/cpu/{name}.h" for name in ("kernels", "direct", "matrices")],
    extra_compile_args=["-O3", "-ffp-contract=fast", "-fno-math-errno", "-pthread"],
    extra_link_args=["-pthread"],
    optional=True,
    py_limited_api=STABLE_ABI,
)

# What starts ffmpeg: a program. Without a compiler Python does the same, slower.
LAUNCHER = Extension(
    "app.platform.media._launcher",
    sources=["app/platform/media/launcher.c"],
    extra_compile_args=["-O2"],
    optional=True,
    py_limited_api=STABLE_ABI,
)


class BuildExtensions(build_ext):
    def copy_extensions_to_source(self) -> None:
        """Put what was compiled into the source tree. Files of other versions, under other names, go.

        A server may run from there: each file changes at once, and only if its content differs.
        """
        packages = self.get_finalized_command("build_py")
        for extension in self.extensions:
            target, compiled = map(Path, self._get_inplace_equivalent(packages, extension))
            new = target.with_name(f"{target.name.partition('.')[0]}.new.so")
            if compiled.exists() and not (target.exists() and filecmp.cmp(compiled, target, shallow=False)):
                shutil.copy(compiled, new)
                new.replace(target)
            for other in target.parent.glob(f"{target.name.partition('.')[0]}.*.so"):
                if other != target or not compiled.exists():
                    other.unlink()

    def build_extension(self, ext: Extension) -> None:
        # What an earlier build left does not stand in for one that fails.
        Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
        if ext.name != LAUNCHER.name:
            super().build_extension(ext)
            return
        link = self.compiler.link_shared_object
        self.compiler.link_shared_object = partial(self.compiler.link, self.compiler.EXECUTABLE)
        try:
            super().build_extension(ext)
        finally:
            self.compiler.link_shared_object = link


extensions = [KERNELS, LAUNCHER] if sys.platform == "linux" else [KERNELS]
setup(
    cmdclass={"build_ext": BuildExtensions},
    ext_modules=[] if os.environ.get("REGEN_PURE_WHEEL") == "1" else extensions,
    options={"bdist_wheel": {"py_limited_api": "cp311"}} if STABLE_ABI else {},
)
