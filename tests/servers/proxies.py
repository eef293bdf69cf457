"""nginx and Caddy with the files of `deploy/`, changed as their comments say, in front of a server on loopback."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers.process import ServerProcess, accepts

DEPLOY = Path(__file__).parents[2] / "deploy"
START_SECONDS = 20.0
SERVER = "127.0.0.1:8000"

NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log stderr;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {sites}
}}
"""


@contextlib.contextmanager
def nginx(folder: Path, *, port: int, server_port: int, path: str, strips: bool) -> Iterator[None]:
    """On `port`, passes what is below `path` (empty, or as `/a/b`) on to the server."""
    needs("nginx")
    snippet = folder / "regen-proxy.conf"
    shutil.copy(DEPLOY / "nginx/regen-proxy.conf", snippet)
    whole = (DEPLOY / "nginx/regen.conf").read_text().replace(SERVER, f"127.0.0.1:{server_port}")
    if path:
        location = (DEPLOY / "nginx/regen-path.conf").read_text().replace("/regen/ {", f"{path}/ {{")
        location = location if strips else location.replace("http://regen/;", "http://regen;")
        upstream = whole[whole.index("upstream") : whole.index("server {\n")]
        sites = f"{upstream} server {{ listen 127.0.0.1:{port}; {location} }}"
    else:
        sites = re.sub(r"(?m)^ *ssl_.*\n", "", whole).replace("443 ssl", f"127.0.0.1:{port}")
    sites = sites.replace("/etc/nginx/snippets/regen-proxy.conf", str(snippet))
    user = "user root;" if os.getuid() == 0 else ""  # the folder is this user's alone
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, user=user, sites=sites))
    with _running(["nginx", "-p", folder, "-c", folder / "nginx.conf", "-e", "stderr"], folder, port):
        yield


@contextlib.contextmanager
def caddy(folder: Path, *, port: int, server_port: int, path: str, strips: bool) -> Iterator[None]:
    """As `nginx`."""
    needs("caddy")
    sites = (DEPLOY / "caddy/Caddyfile").read_text().replace(SERVER, f"127.0.0.1:{server_port}")
    host, below = sites.index("\nregen.example.com {"), sites.index("\nexample.com {")
    site = sites[:host] + (
        sites[below:] if path else sites[host:below].replace("regen.example.com", "example.com")
    )
    site = site.replace("\nexample.com {", f"\nhttp://127.0.0.1:{port} {{").replace(" /regen/*", f" {path}/*")
    site = site if strips else site.replace("\thandle_path ", "\thandle ")
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + site)
    with _running(["caddy", "run", "--config", folder / "Caddyfile", "--adapter", "caddyfile"], folder, port):
        yield


def needs(program: str) -> None:
    """Skips the test where the program is not installed."""
    if shutil.which(program) is None:
        pytest.skip(f"There is no {program}: on Debian, apt install {program}.")


@contextlib.contextmanager
def _running(command: list[str | Path], folder: Path, port: int) -> Iterator[None]:
    environment = {
        **os.environ,
        "HOME": str(folder),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
    }
    process = ServerProcess(command, log=folder / "proxy.log", environment=environment)
    try:
        process.wait_until(lambda: accepts(port), seconds=START_SECONDS, what=f"{command[0]} listens")
        yield
    finally:
        process.stop()
