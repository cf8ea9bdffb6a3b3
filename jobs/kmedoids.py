"""Submit a job of k-medoids: what ``distclust kmedoids`` does, as a file that a scheduler can start.

    spark-submit --master spark://host:7077 jobs/kmedoids.py DATA --column embedding -k 100 --engine spark -o OUT
    python jobs/kmedoids.py DATA --columns a,b,c --metric gower -k 20 --engine dask://host:8786 -o OUT

Arguments are those of ``distclust kmedoids``; exit codes are those of ``distclust``.
"""

from __future__ import annotations

from distclust.cli.submit import submit

if __name__ == "__main__":
    submit("kmedoids")
