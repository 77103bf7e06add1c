"""Make .venv and install requirements.lock and this library into it (`make` calls this; it needs nothing but Python).

Written so that an interpreter that is too old can still read it and say so.
"""

import os
import shutil
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
LOG = os.path.join(ROOT, "_build", "install.log")
OLDEST, NEWEST = (3, 11), (3, 13)
IN_RANGE = "import sys; sys.exit(not %s <= sys.version_info[:2] <= %s)" % (OLDEST, NEWEST)


def stop(message):
    """End with one line that says what to do."""
    sys.exit("environment: " + message)


def interpreter():
    """The path of a Python in the range: the one that runs this, else one on the PATH."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return sys.executable
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        found = getattr(shutil, "which", lambda name: None)("python3.%d" % minor)
        if found and subprocess.call([found, "-c", ""], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
            return found
    stop(
        "Python %d.%d is outside the range 3.11 to 3.13, and none of those is on the PATH. Install one, or name it: "
        "make book PYTHON=/path/to/python3.12" % sys.version_info[:2]
    )


def make_venv(python, place=None):
    """Create .venv, or an environment at another place, or leave one that works as it is."""
    place = place or VENV
    inside = os.path.join(place, "bin", "python")
    if os.path.exists(inside) and run([inside, "-c", IN_RANGE]) == 0 and run([inside, "-m", "pip", "--version"]) == 0:
        return inside
    shutil.rmtree(place, ignore_errors=True)
    if run([python, "-c", "import ensurepip, venv"]) != 0:
        stop("%s has no venv module. On Debian and Ubuntu: apt install python3-venv; then call make again" % python)
    if run([python, "-m", "venv", place]) != 0:
        stop("could not create %s (free space? rights?). The reason stands in %s" % (place, LOG))
    return inside


def run(command):
    """Run a command, its output in the log; return its exit status."""
    with open(LOG, "ab") as log:
        return subprocess.call(command, stdout=log, stderr=log, cwd=ROOT)


def install(inside, versions="requirements.lock", library=True):
    """Install the lock, or other versions, then the library without asking for anything more."""
    pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if run(pip + ["-r", versions]) != 0:
        stop(
            "installing %s failed, often a broken download: call make again, it goes on from there. "
            "The reason stands in %s" % (versions, LOG)
        )
    if library and run(pip + ["--no-deps", "--no-build-isolation", "--editable", "."]) != 0:
        stop("installing the library itself failed. The reason stands in %s" % LOG)


def main():
    """Set up everything and leave a mark that make can see."""
    start = time.time()
    if not os.path.isdir(os.path.dirname(LOG)):
        os.makedirs(os.path.dirname(LOG))
    python = interpreter()
    print("environment: installing into .venv with %s (2.5 GB; with torch for NVIDIA cards several more)" % python)
    sys.stdout.flush()
    open(LOG, "wb").close()
    install(make_venv(python))
    open(os.path.join(VENV, ".installed"), "w").close()
    print("-- environment: %d s" % (time.time() - start))


if __name__ == "__main__":
    main()
