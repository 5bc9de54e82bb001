#!/usr/bin/env python3
"""Let the disk be full from one write call on, for every such call of a training and an export.

    python tools/full_disk.py SUBJECT [--runs 0] [--first 1] [--seed 0] [key=value ...]

A library in front of libc (compiled here with `cc`) counts the calls that write to the output
folder and lets them fail from the chosen one on. Each run must end with one sentence, readable
checkpoints, no part of a final file, and must go on once there is space. `--runs` takes that many
calls by chance, `--first` begins at a later one. Exit code 0 if all is well.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

_SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
static long calls = 0;
static int refused(int fd) {
    const char *folder = getenv("FULL_FOLDER"), *at = getenv("FULL_AT"), *log = getenv("FULL_LOG");
    char link[64], path[4096];
    if (!folder || !at) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    if (strncmp(path, folder, strlen(folder))) return 0;
    long now = __sync_add_and_fetch(&calls, 1);
    if (log && atol(at) == 0) {
        FILE *f = fopen(log, "w");
        if (f) { fprintf(f, "%ld", now); fclose(f); }
    }
    return atol(at) && now >= atol(at);
}
#define REFUSE if (refused(fd)) { errno = ENOSPC; return -1; }
ssize_t write(int fd, const void *b, size_t n) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    REFUSE return real(fd, b, n);
}
ssize_t pwrite64(int fd, const void *b, size_t n, off64_t o) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    REFUSE return real(fd, b, n, o);
}
ssize_t writev(int fd, const struct iovec *v, int n) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real) real = dlsym(RTLD_NEXT, "writev");
    REFUSE return real(fd, v, n);
}
int ftruncate64(int fd, off64_t n) {
    static int (*real)(int, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "ftruncate64");
    REFUSE return real(fd, n);
}
"""
_PROGRAM = """
import sys
from avatar3d.cli.main import _run
subject, folder, *settings = sys.argv[1:]
for words in (["train", subject, "-o", f"{folder}/a.a3d", *settings],
              ["export", f"{folder}/a.a3d", "-o", f"{folder}/a.html"]):
    sys.argv = ["avatar3d", *words]
    if code := _run():
        sys.exit(code)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("subject", type=Path)
    parser.add_argument("--runs", type=int, default=0, help="how many calls; 0 takes all")
    parser.add_argument("--first", type=int, default=1, help="first call of those")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("settings", nargs="*", help="of training, as key=value")
    options = parser.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="avatar3d-full-") as name:
        place = Path(name).resolve()
        (place / "shim.c").write_text(_SHIM)
        library = str(place / "shim.so")
        build = ["cc", "-shared", "-fPIC", "-O1", "-o", library, str(place / "shim.c"), "-ldl"]
        subprocess.run(build, check=True)
        done = attempt(options, place / "all", library, 0, place / "count")
        if done.returncode:
            raise RuntimeError(done.stderr[-1000:])
        calls = int((place / "count").read_text())
        print(f"{calls} write calls in a training and an export", flush=True)
        chosen = list(range(options.first, calls + 1))
        if options.runs:
            chosen = sorted(random.Random(options.seed).sample(chosen, options.runs))
        wrong = 0
        for call in chosen:
            folder = place / f"at{call}"
            done = attempt(options, folder, library, call, place / "unused")
            problem = judged(done, folder) or after(options, folder, library)
            wrong += bool(problem)
            said = done.stderr.strip().splitlines()[-1:] or [""]
            print(f"call {call}: {problem or 'sound'}: {said[0][:110]}", flush=True)
    print(f"{wrong} of {len(chosen)} runs did harm")
    return 1 if wrong else 0


def attempt(
    options: argparse.Namespace, folder: Path, library: str, call: int, log: Path
) -> "subprocess.CompletedProcess[str]":
    folder.mkdir(exist_ok=True)
    added = {"LD_PRELOAD": library, "FULL_FOLDER": str(folder), "FULL_AT": str(call)}
    return subprocess.run(
        [sys.executable, "-c", _PROGRAM, str(options.subject), str(folder), *options.settings],
        capture_output=True, text=True, env=os.environ | added | {"FULL_LOG": str(log)},
    )  # fmt: skip


def judged(done: "subprocess.CompletedProcess[str]", folder: Path) -> str:
    """What is wrong after a disk was full; empty if nothing is."""
    from avatar3d.provenance import verify

    if done.returncode != 2:
        return f"exit code {done.returncode}: {done.stderr[-300:]}"
    if "Traceback" in done.stderr or "avatar3d: " not in done.stderr:
        return f"not one sentence: {done.stderr[-300:]}"
    from safetensors.numpy import load_file

    for path in folder.rglob("checkpoint-*.safetensors"):
        load_file(path)
    for path in (folder / "a.a3d", folder / "a.html"):
        if path.exists() and verify(path).state != "valid":
            return f"{path.name} is {verify(path).state}"
    return ""


def after(options: argparse.Namespace, folder: Path, library: str) -> str:
    """The same commands once there is space again."""
    done = attempt(options, folder, library, 1 << 40, folder / "unused")
    left = [path.name for path in folder.rglob(".partial-*")]
    if done.returncode or left:
        return f"does not go on: {done.stderr[-300:]} {left}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
