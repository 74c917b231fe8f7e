"""Run every benchmark in a process of its own; print each one's line of JSON.

One that this machine cannot run (no GPU) has said so, and is named as skipped.
"""

import os
import pkgutil
import subprocess
import sys

import benchmarks


def main() -> None:
    failed, skipped = [], []
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name.startswith("_"):
            continue
        command = [sys.executable, "-m", f"benchmarks.{module.name}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode == os.EX_UNAVAILABLE:
            skipped.append(module.name)
        elif done.returncode:
            failed.append(module.name)
        else:
            print(done.stdout.splitlines()[-1], flush=True)
    if skipped:
        print(f"skipped: {', '.join(skipped)}", file=sys.stderr)
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
