"""How long a library of many people takes on many machines, and what it costs and stores.

    python tools/plan_capacity.py --identities 100000 --machines 200 --slots 1 --loss-per-hour 0.02
    python tools/plan_capacity.py --identities 1000 --machines 4 --measured jobs.json --json p.json

`--measured` is a JSON list of stages as jobs had them, with the fields of
`avatar3d.batch.plan.Measured` (stage, minutes, seconds, cpu_seconds, gpu_seconds, memory_gb,
stored_mb); without it the costs are those that README.md reports, capture and training only.
"""

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path

from avatar3d.batch.plan import MEASURED, Cluster, Measured, fit_costs, simulate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identities", type=int, default=1000)
    parser.add_argument("--minutes", type=float, default=[1.0], nargs="+", help="of video each")
    parser.add_argument("--measured", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--machines", type=int, default=1)
    for name, value in asdict(Cluster(1)).items():
        if name != "machines":
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, type=type(value), default=value)
    options = vars(parser.parse_args())
    cluster = Cluster(**{name: options[name] for name in asdict(Cluster(1))})
    costs = MEASURED
    if options["measured"]:
        rows = json.loads(options["measured"].read_text("utf-8"))
        costs = fit_costs(Measured(**row) for row in rows)
    start = time.process_time()
    result = simulate(options["identities"], options["minutes"], costs, cluster, options["seed"])
    spent = time.process_time() - start
    for name, value in asdict(result).items():
        print(f"{name:<14}{value:>14,.1f}")
    print(f"simulated in {spent:.1f} s of CPU")
    if options["json"]:
        content = {"forecast": asdict(result), "costs": [asdict(cost) for cost in costs]}
        options["json"].write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
