"""How long a library of many people takes on many machines, and what it costs and stores.

    python tools/plan_capacity.py --identities 100000 --machines 200 --slots 1 --loss-per-hour 0.02
    python tools/plan_capacity.py --identities 1000 --machines 4 --measured library --json p.json

`--measured` is the folder of a library that `avatar3d batch` made, or a JSON list of stages with
the fields of `avatar3d.batch.plan.Measured` (stage, minutes, seconds, cpu_seconds, gpu_seconds,
memory_gb, stored_mb); without it the costs are those that README.md reports, capture and training
only.
`--try COMMAND` runs a command three times alone and then so often as there are identities, `slots`
at a time, and compares how long it all takes with the simulation.
"""

import argparse
import json
import shlex
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from avatar3d.batch.plan import MEASURED, Cluster, Measured, fit_costs, measured_in, simulate


def compare(command: str, count: int, cluster: Cluster) -> None:
    """Predict a real run of `count` commands from three single ones, and then make it."""

    def run(_: int) -> float:
        start = time.monotonic()
        subprocess.run(shlex.split(command), check=True, stdout=subprocess.DEVNULL)
        return time.monotonic() - start

    alone = sorted(run(number) for number in range(3))[1]
    costs = fit_costs([Measured("job", 1.0, alone)])
    predicted = simulate(count, 1.0, costs, replace(cluster, machines=1)).hours * 3600
    start = time.monotonic()
    with ThreadPoolExecutor(cluster.slots) as pool:
        each = list(pool.map(run, range(count)))
    real = time.monotonic() - start
    print(f"alone {alone:.2f} s, in company {sum(each) / count:.2f} s")
    print(f"predicted {predicted:.1f} s, real {real:.1f} s, {100 * (predicted / real - 1):+.1f} %")


def read_measured(path: Path) -> list[Measured]:
    if path.is_dir():
        return measured_in(path)
    return [Measured(**row) for row in json.loads(path.read_text("utf-8"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identities", type=int, default=1000)
    parser.add_argument(
        "--minutes", type=float, nargs="+", help="of video each [those measured, or 1]"
    )
    parser.add_argument("--measured", type=Path)
    parser.add_argument("--try", dest="command", help="a job of one stage, to be run for real")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--machines", type=int, default=1)
    for name, value in asdict(Cluster(1)).items():
        if name != "machines":
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, type=type(value), default=value)
    options = vars(parser.parse_args())
    cluster = Cluster(**{name: options[name] for name in asdict(Cluster(1))})
    costs, minutes = MEASURED, options["minutes"] or [1.0]
    if options["measured"]:
        rows = read_measured(options["measured"])
        costs = fit_costs(rows)
        minutes = options["minutes"] or [r.minutes for r in rows if r.stage == costs[-1].stage]
    if options["command"]:
        compare(options["command"], options["identities"], cluster)
        return
    start = time.process_time()
    result = simulate(options["identities"], minutes, costs, cluster, options["seed"])
    spent = time.process_time() - start
    for name, value in asdict(result).items():
        print(f"{name:<14}{value:>14,.1f}" if value >= 10 else f"{name:<14}{value:>14.4g}")
    print(f"simulated in {spent:.1f} s of CPU")
    if options["json"]:
        content = {"forecast": asdict(result), "costs": [asdict(cost) for cost in costs]}
        options["json"].write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
