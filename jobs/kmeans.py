"""Submit the main job: what ``distclust kmeans`` does, as a file that a scheduler can start.

    spark-submit --master spark://host:7077 jobs/kmeans.py DATA --column embedding -k 1000 --engine spark -o OUT
    python jobs/kmeans.py DATA --column embedding -k 1000 --engine dask://host:8786 -o OUT

Arguments are those of ``distclust kmeans``; exit codes are those of ``distclust``.
"""

from __future__ import annotations

from distclust.cli.submit import submit

if __name__ == "__main__":
    submit("kmeans")
