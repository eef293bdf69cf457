"""Takes out of a Python environment what is in the wheels and a server never opens: slim_environment.py ENVIRONMENT

For images: tests, C++ headers and test programs of torch, descriptions of other services than S3 in botocore, lexers of
other languages than Python's in pygments, a page of the API that is not shown, debugging symbols.
"""

import shutil
import subprocess
import sys
from pathlib import Path

# torch's headers are for extensions that are compiled against it; its bin/ has the programs of its own tests beside the
# one that shared memory needs.
UNUSED = (
    "torch/include",
    "torch/test",
    "torch/share",
    "torch/bin/*",
    "sqlalchemy/testing",
    "botocore/data/*/",
    "fastapi_offline/static/redoc*",
    "pygments/lexers/*",
)
# S3, and what gives credentials for it; the program for shared memory; what tracebacks are coloured by.
KEPT = frozenset(
    {"s3", "sts", "sso", "sso-oidc", "signin", "torch_shm_manager"}
    | {"__init__.py", "_mapping.py", "python.py", "special.py"}
)


def slim(packages: Path) -> None:
    """`packages`: the environment's site-packages."""
    for pattern in UNUSED:
        for path in packages.glob(pattern.rstrip("/")):
            if path.name in KEPT:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            elif not pattern.endswith("/"):
                path.unlink()
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
