"""Where steps run: local threads, Dask, Spark. The only floor that knows Dask or Spark, each in its own files."""
