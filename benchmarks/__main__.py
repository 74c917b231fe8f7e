"""Run every benchmark in a process of its own; print each one's line of JSON."""

import pkgutil
import subprocess
import sys

import benchmarks


def main() -> None:
    failed = []
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name.startswith("_"):
            continue
        command = [sys.executable, "-m", f"benchmarks.{module.name}"]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            failed.append(module.name)
        else:
            print(done.stdout.splitlines()[-1], flush=True)
    if failed:
        sys.exit(f"error: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
