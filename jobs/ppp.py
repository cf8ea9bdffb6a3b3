"""Submit PPP: what ``distclust ppp`` does, as a file that a scheduler can start.

    spark-submit --master spark://host:7077 jobs/ppp.py DATA --column embedding --engine spark -o OUT
    python jobs/ppp.py DATA --column embedding --engine dask://host:8786 -o OUT

Arguments are those of ``distclust ppp``; exit codes are those of ``distclust``.
"""

from __future__ import annotations

from distclust.cli.submit import submit

if __name__ == "__main__":
    submit("ppp")
