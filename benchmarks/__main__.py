"""python -m benchmarks: all benchmarks; the one on a cluster where KUBECONFIG names one."""

import os

from benchmarks import cluster, overhead, packing, quickstart, scale, sharing


def main() -> None:
    overhead.main([])
    quickstart.main([])
    packing.main([])
    sharing.main([])
    scale.main(["--studies", "200"])  # a thousand take half an hour
    if os.environ.get("KUBECONFIG"):
        cluster.main([])
    else:
        print("\nNo KUBECONFIG: the benchmark on a cluster is left out.")


if __name__ == "__main__":
    main()
