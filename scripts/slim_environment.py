"""Takes out of a Python environment what is in the wheels and a server never opens: slim_environment.py ENVIRONMENT

For images: tests, C++ headers and test programs of torch, descriptions of other services than S3 in botocore, debugging
symbols.
"""

import shutil
import subprocess
import sys
from pathlib import Path

# torch's headers are for extensions that are compiled against it; its bin/ has the programs of its own tests beside the
# one that shared memory needs.
UNUSED = ("torch/include", "torch/test", "torch/share", "sqlalchemy/testing", "botocore/data/*/")
KEPT_PROGRAMS = frozenset({"torch_shm_manager"})
# S3, and what gives credentials for it.
KEPT_SERVICES = frozenset({"s3", "sts", "sso", "sso-oidc", "signin"})


def slim(packages: Path) -> None:
    """`packages`: the environment's site-packages."""
    for pattern in UNUSED:
        for path in packages.glob(pattern.rstrip("/")):
            if path.is_dir() and path.name not in KEPT_SERVICES:
                shutil.rmtree(path)
    for program in packages.glob("torch/bin/*"):
        if program.name not in KEPT_PROGRAMS:
            program.unlink()
    strip = shutil.which("strip")
    if strip is None:
        sys.exit("There is no strip: install binutils.")
    for module in packages.rglob("*.cpython-*.so"):
        package = module.relative_to(packages).parts[0]
        # Modules that come with libraries of their own were rewritten to find them, which strip does not survive.
        if package != "torch" and not (packages / f"{package}.libs").exists():
            subprocess.run([strip, "--strip-unneeded", str(module)], check=True)


if __name__ == "__main__":
    (site_packages,) = Path(sys.argv[1]).glob("lib/python3*/site-packages")
    slim(site_packages)
