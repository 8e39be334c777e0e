"""Fetching of official weight files, against a server on the loopback interface."""

import gc
import hashlib
import http.server
import importlib.util
import re
import socket
import sys
import threading
from pathlib import Path

import pytest

from ftjax.cli import weights as command_line
from ftjax.machine.caches import cache_folder
from ftjax.weights.fetch import (
    OFFICIAL,
    PACKAGED,
    RemoteFile,
    WeightFiles,
    fetch,
    list_names,
)

TORCH = "https://download.pytorch.org/models/"
# Those that are not Keras', by the start of the published hash.
OTHERS = {
    "alexnet": "sha1:9116a64c",
    "alexnet_torch": "sha256:7be5be79",
    "resnet18": "sha256:f37072fd",
    "resnet34": "sha256:b627a593",
    "mobilenetv3_small": "sha256:047dcff4",
    "mobilenetv3_large": "sha256:5c1a4163",
    "convnext_tiny": "sha256:983f1562",
    "convnext_base": "sha256:6075fbad",
}

CONTENT = {"a.h5": b"with top" * 1000, "a_notop.h5": b"without top" * 1000}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FTJAX_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FTJAX_OFFLINE", raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    return tmp_path / "cache" / "weights"


@pytest.fixture
def no_sockets(monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("a socket was opened")

    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, refuse)


@pytest.fixture
def served(tmp_path, monkeypatch):
    """Serves CONTENT as the files of vgg16; returns the paths that were asked for."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = CONTENT.get(self.path[1:])
            self.send_response(404 if body is None else 200)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/"
        monkeypatch.setitem(OFFICIAL, "vgg16", made_files(address))
        yield asked
        server.shutdown()
        thread.join()


def made_files(address):
    def remote(name):
        known_hash = f"md5:{hashlib.md5(CONTENT[name]).hexdigest()}"
        return RemoteFile(address + name, known_hash)

    return WeightFiles(top=remote("a.h5"), notop=remote("a_notop.h5"))


def refusal(*arguments, **options) -> str:
    with pytest.raises(ValueError, match="weights|another hash") as caught:
        fetch(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_table_has_an_address_and_a_hash_for_every_network():
    assert list_names() == [*PACKAGED, *OFFICIAL]
    keras = {name: files for name, files in OFFICIAL.items() if name not in OTHERS}
    remotes = [remote for files in keras.values() for remote in files]
    assert len(keras) == 15
    assert len({r.url for r in remotes}) == len({r.known_hash for r in remotes}) == 30
    for files in keras.values():
        assert files.notop.file_name == files.top.file_name.replace(".", "_notop.")
    for entry in remotes:
        assert re.fullmatch("md5:[0-9a-f]{32}", entry.known_hash)
        assert entry.url.startswith("https://storage.googleapis.com/")
    for name, start in OTHERS.items():
        files = OFFICIAL[name]
        assert files.top == files.notop and files.top.known_hash.startswith(start)
        if name != "alexnet":  # the file's name holds the start of its hash
            assert files.top.url.startswith(TORCH) and start[7:] in files.top.url


def test_table_is_what_keras_says(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    pytest.importorskip("keras")
    folder = Path(importlib.util.find_spec("keras").origin).parent / "src/applications"
    for name in OFFICIAL.keys() - OTHERS.keys():
        files = OFFICIAL[name]
        stem = re.sub("[0-9b]+$", "", name).replace("effnet", "efficientnet")
        stem = stem.replace("netv2s", "net_v2")
        file = folder / f"{stem if stem != 'vgg' else name}.py"
        source = re.sub(r'"\s+"', "", file.read_text())
        for remote in files:
            assert f'"{remote.known_hash.removeprefix("md5:")}"' in source
            base = remote.url.removesuffix(remote.file_name)
            assert base in source
            if stem == "vgg":
                assert f'"{remote.url}"' in source


def test_download_once_then_from_the_cache(served, own_cache):
    path = fetch("vgg16")
    assert (
        path == own_cache / "a_notop.h5" and path.parent == cache_folder() / "weights"
    )
    assert path.read_bytes() == CONTENT["a_notop.h5"]
    assert fetch("vgg16") == path and served == ["/a_notop.h5"]
    assert fetch("vgg16", top=True).read_bytes() == CONTENT["a.h5"]


def test_damaged_cache_is_replaced_online_and_refused_offline(served, tmp_path):
    path = fetch("vgg16", cache_dir=tmp_path)
    assert path.parent == tmp_path
    path.write_bytes(b"damaged")
    line = refusal("vgg16", cache_dir=tmp_path, offline=True)
    assert "another hash" in line and str(path) in line
    assert fetch("vgg16", cache_dir=tmp_path).read_bytes() == CONTENT["a_notop.h5"]


def test_a_part_of_a_hash_is_checked_as_far_as_it_goes(served, own_cache, monkeypatch):
    remote = OFFICIAL["vgg16"].notop
    whole = hashlib.sha256(CONTENT["a_notop.h5"]).hexdigest()
    short = remote._replace(known_hash=f"sha256:{whole[:8]}")
    monkeypatch.setitem(OFFICIAL, "vgg16", WeightFiles(short, short))
    path = fetch("vgg16")
    path.write_bytes(b"damaged")
    assert fetch("vgg16").read_bytes() == CONTENT["a_notop.h5"]
    path.unlink()
    monkeypatch.setitem(CONTENT, "a_notop.h5", b"something else")
    assert f"another hash than sha256:{whole[:8]}" in refusal("vgg16")
    assert list(own_cache.iterdir()) == []


def test_wrong_content_is_not_kept(served, own_cache, monkeypatch):
    monkeypatch.setitem(CONTENT, "a_notop.h5", b"something else")
    assert "could not download the weights (ValueError: " in refusal("vgg16")
    assert list(own_cache.iterdir()) == []


# pooch does not close the response to a 404; gc.collect() makes it go here and now
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_missing_file_and_dead_server_are_one_line(served, monkeypatch):
    monkeypatch.delitem(CONTENT, "a.h5")
    assert "404" in refusal("vgg16", top=True)
    gc.collect()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/dead.h5"
    dead = RemoteFile(url, "md5:" + "0" * 32)
    monkeypatch.setitem(OFFICIAL, "vgg19", WeightFiles(dead, dead))
    line = refusal("vgg19")
    assert "ConnectionError" in line and f"from {url}" in line


@pytest.mark.parametrize("switch", ["argument", "environment"])
def test_offline_opens_no_socket(switch, no_sockets, own_cache, monkeypatch):
    if switch == "environment":
        monkeypatch.setenv("FTJAX_OFFLINE", "1")
    for name, files in OFFICIAL.items():
        for top, file in ((True, files.top), (False, files.notop)):
            line = refusal(name, top=top, offline=switch == "argument")
            assert str(own_cache / file.file_name) in line
            assert file.known_hash in line and file.url in line
    assert not own_cache.exists()


def test_offline_uses_the_cache(no_sockets, own_cache, monkeypatch):
    own_cache.mkdir(parents=True)
    (own_cache / "a.h5").write_bytes(CONTENT["a.h5"])
    monkeypatch.setitem(OFFICIAL, "vgg16", made_files("https://x.invalid/"))
    assert fetch("vgg16", top=True, offline=True) == own_cache / "a.h5"


@pytest.mark.parametrize(
    ("name", "size", "extra"),
    [
        ("effnetlite0", 18_826_032, "demo"),
        ("effnetlite1", 21_946_926, "lite"),
        ("effnetlite2", 24_666_229, "lite"),
    ],
)
def test_lite_comes_from_its_package(name, size, extra, no_sockets, monkeypatch):
    packaged = PACKAGED[name]
    pytest.importorskip(packaged.package, reason=f"needs ftjax[{extra}]")
    monkeypatch.delitem(sys.modules, packaged.package)
    assert fetch(name).stat().st_size == size
    assert packaged.package not in sys.modules
    wrong = packaged._replace(known_hash="sha256:" + "0" * 64)
    monkeypatch.setitem(PACKAGED, name, wrong)
    assert "another hash" in refusal(name)
    monkeypatch.setitem(PACKAGED, name, packaged._replace(package="no_such_package"))
    assert f'pip install "ftjax[{extra}]"' in refusal(name)


def test_command_line(served, own_cache, capsys):
    assert command_line.main(["fetch", "vgg16", "--top"]) == 0
    assert capsys.readouterr().out == f"{own_cache / 'a.h5'}\n"
    assert command_line.main(["list"]) == 0
    listed = capsys.readouterr().out
    assert re.search(r"vgg16 +top +cached md5:", listed)
    assert re.search(r"vgg16 +notop +absent md5:", listed)
    assert all(name in listed for name in list_names())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["fetch", "vgg61"],
            "no official weights for 'vgg61'; allowed are effnetlite0",
        ),
        (["fetch", "resnet50", "--offline"], "offline, and the weights file is not"),
        (["fetch"], "missing: NAME"),
        (["fecth", "vgg16"], "unrecognized options: fecth"),
        ([], "expected one of {fetch, list}"),
    ],
)
def test_command_line_errors_are_one_line_and_exit_code_2(arguments, message, capsys):
    try:
        exit_code = command_line.main(arguments)
    except SystemExit as stop:
        exit_code = stop.code
    assert exit_code == 2
    out, error = capsys.readouterr()
    assert out == "" and error.startswith("error: ") and error.count("\n") == 1
    assert message in error
