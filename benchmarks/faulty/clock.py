"""A wall clock that can be set without touching the host's: a small library that is loaded before all others."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static volatile long long *step;
static int (*real)(clockid_t, struct timespec *);

__attribute__((constructor)) static void start(void) {
    const char *name = getenv("INAS_CLOCK");
    int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *page = mmap(0, sizeof(long long), PROT_READ, MAP_SHARED, file, 0);
    if (page != MAP_FAILED) step = page;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int code = real(id, now);
    if (step && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += *step;
    return code;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec fine;
    int code = clock_gettime(CLOCK_REALTIME, &fine);
    now->tv_sec = fine.tv_sec;
    now->tv_usec = fine.tv_nsec / 1000;
    return code;
}

time_t time(time_t *out) {
    struct timespec fine;
    clock_gettime(CLOCK_REALTIME, &fine);
    if (out) *out = fine.tv_sec;
    return fine.tv_sec;
}
"""


class Clock:
    """The wall clock of the processes that load the library; the monotonic clock goes on as it does.

    Args:
        folder: Where the library and the clock's file go.
        inside: The same folder as those processes name it.

    Attributes:
        works: Whether this host has a C compiler to build it with.
        library: File to preload, by its name inside.
        file: File to name in ``INAS_CLOCK``, by its name inside.
    """

    def __init__(self, folder: Path, inside: str = "") -> None:
        self._file = folder / "clock"
        self.file = f"{inside or folder}/clock"
        self.library = f"{inside or folder}/clock.so"
        self.set(0)
        compiler = shutil.which("cc") or shutil.which("gcc")
        self.works = compiler is not None
        if compiler is not None:
            (folder / "clock.c").write_text(_SOURCE)
            argv = [compiler, "-O2", "-shared", "-fPIC", "-o", "clock.so", "clock.c", "-ldl"]
            subprocess.run(argv, cwd=folder, check=True, capture_output=True)
            (folder / "clock.c").unlink()

    def set(self, seconds: int) -> None:
        """Step it to so many seconds off the host's clock; what runs sees it at once."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:  # in place: it is mapped
            file.write(seconds.to_bytes(8, "little", signed=True))

    def environment(self) -> str:
        """Words before a command that give it this clock."""
        return f"LD_PRELOAD={self.library} INAS_CLOCK={self.file}" if self.works else ""
