"""Submit a Gaussian mixture: what ``distclust gmm`` does, as a file that a scheduler can start.

    spark-submit --master spark://host:7077 jobs/gmm.py DATA --column embedding -k 16 --engine spark -o OUT
    python jobs/gmm.py DATA --column embedding -k 16 --engine dask://host:8786 -o OUT

Arguments are those of ``distclust gmm``; exit codes are those of ``distclust``.
"""

from __future__ import annotations

from distclust.cli.submit import submit

if __name__ == "__main__":
    submit("gmm")
