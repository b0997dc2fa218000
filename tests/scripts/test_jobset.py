"""scripts/jobset.yaml against the schema of what it uses, and what its pods get from it."""

import math
import pathlib
import re

import pytest
import yaml

from paligemma_jax.cli import main
from paligemma_jax.train import loop, processes

MANIFEST = pathlib.Path(__file__).resolve().parents[2] / "scripts/jobset.yaml"

# The part of the JobSet CRD (jobset.x-k8s.io/v1alpha2), of batch/v1 JobSpec and of v1 PodSpec that
# the manifest uses, after their API references. A dict: an object with these keys and no other, "!"
# marks those it must have; [x]: a list of x; a tuple: one of these; {str: x}: any keys.
NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
ENV = {
  "name!": re.compile(r"[A-Za-z_][A-Za-z0-9_]*"),
  "value": str,
  "valueFrom": {"fieldRef": {"fieldPath!": re.compile(r"metadata\.annotations\['[^']+'\]")}},
}
CONTAINER = {
  "name!": NAME,
  "image!": str,
  "command": [str],
  "args": [str],
  "env": [ENV],
  "ports": [{"containerPort!": int}],
  "resources": {"limits": {str: int}},
  "volumeMounts": [{"name!": NAME, "mountPath!": str}],
}
VOLUME = {
  "name!": NAME,
  "persistentVolumeClaim": {"claimName!": NAME},
  "emptyDir": {"medium": ("", "Memory")},
}
POD = {
  "restartPolicy!": ("Never",),  # the only one that podFailurePolicy allows
  "terminationGracePeriodSeconds": int,
  "nodeSelector": {str: str},
  "containers!": [CONTAINER],
  "volumes": [VOLUME],
}
FAILURE_RULE = {
  "action!": ("FailJob", "FailIndex", "Ignore", "Count"),
  "onExitCodes": {"containerName": NAME, "operator!": ("In", "NotIn"), "values!": [int]},
  "onPodConditions": [{"type!": str, "status!": ("True", "False", "Unknown")}],
}
JOB = {
  "completionMode": ("Indexed", "NonIndexed"),
  "parallelism": int,
  "completions": int,
  "backoffLimit": int,
  "podFailurePolicy": {"rules!": [FAILURE_RULE]},
  "template!": {"spec!": POD},
}
JOBSET_RULE = {
  "name!": re.compile(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?"),
  "action!": ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"),
  "onJobFailureReasons": [
    ("BackoffLimitExceeded", "DeadlineExceeded", "FailedIndexes", "PodFailurePolicy")
  ],
}
JOBSET = {
  "apiVersion!": ("jobset.x-k8s.io/v1alpha2",),
  "kind!": ("JobSet",),
  "metadata!": {"name!": NAME, "annotations": {str: str}},
  "spec!": {
    "coordinator": {"replicatedJob!": str, "jobIndex": int, "podIndex": int},
    "network": {"enableDNSHostnames": bool, "publishNotReadyAddresses": bool},
    "failurePolicy": {"maxRestarts": int, "rules": [JOBSET_RULE]},
    "replicatedJobs!": [{"name!": NAME, "replicas": int, "template!": {"spec!": JOB}}],
  },
}


def problems(value, schema, where="") -> list[str]:
  """What in a manifest is not as the schema says."""
  if isinstance(schema, tuple):
    return [] if value in schema else [f"{where}: {value!r} is none of {schema}"]
  if isinstance(schema, re.Pattern):
    matches = isinstance(value, str) and schema.fullmatch(value)
    return [] if matches else [f"{where}: {value!r} does not match {schema.pattern}"]
  if isinstance(schema, type):
    return [] if type(value) is schema else [f"{where}: {value!r} is no {schema.__name__}"]
  if not isinstance(value, type(schema)):
    return [f"{where}: {value!r} is no {type(schema).__name__}"]
  if isinstance(schema, list):
    return [p for i, v in enumerate(value) for p in problems(v, schema[0], f"{where}[{i}]")]
  if str in schema:
    return [p for k, v in value.items() for p in problems(v, schema[str], f"{where}.{k}")]
  known = {key.rstrip("!"): s for key, s in schema.items()}
  needed = [key[:-1] for key in schema if key.endswith("!")]
  found = [f"{where}.{key} is missing" for key in needed if key not in value]
  for key, v in value.items():
    found += problems(v, known[key], f"{where}.{key}") if key in known else [f"{where}.{key}?"]
  return found


@pytest.fixture
def manifest() -> dict:
  return yaml.safe_load(MANIFEST.read_text())


@pytest.fixture
def job(manifest) -> dict:
  [replicated] = manifest["spec"]["replicatedJobs"]
  return replicated["template"]["spec"]


@pytest.fixture
def container(job) -> dict:
  [container] = job["template"]["spec"]["containers"]
  return container


def test_the_manifest_is_valid(manifest):
  assert not problems(manifest, JOBSET)


@pytest.mark.parametrize(
  "change, problem",
  [
    (lambda m: m["spec"].pop("replicatedJobs"), ".spec.replicatedJobs is missing"),
    (lambda m: m["spec"].update(replicas=2), ".spec.replicas?"),
    (lambda m: m["metadata"].update(name="Under_score"), ".metadata.name: 'Under_score'"),
    (lambda m: m["spec"]["coordinator"].update(jobIndex="0"), ".spec.coordinator.jobIndex: '0'"),
  ],
)
def test_the_schema_finds_mistakes(manifest, change, problem):
  change(manifest)
  [found] = problems(manifest, JOBSET)
  assert found.startswith(problem)


def environment(manifest, container, index: int) -> dict[str, str]:
  """The variables of one pod, as kubelet makes them from its annotations."""
  name, spec = manifest["metadata"]["name"], manifest["spec"]
  c = spec["coordinator"]
  host = f"{name}-{c['replicatedJob']}-{c['jobIndex']}-{c['podIndex']}.{name}"
  annotations = {
    "jobset.sigs.k8s.io/coordinator": host,
    "batch.kubernetes.io/job-completion-index": str(index),
  }
  out = {}
  for variable in container["env"]:
    if "value" in variable:  # $(NAME) is a variable defined before
      value = re.sub(r"\$\((\w+)\)", lambda m: out[m[1]], variable["value"])
    else:
      path = variable["valueFrom"]["fieldRef"]["fieldPath"]
      value = annotations[re.search(r"\['(.*)'\]", path)[1]]
    out[variable["name"]] = value
  return out


def test_every_process_gets_its_own_number(manifest, job, container):
  number = job["completions"]
  assert job["completionMode"] == "Indexed" and job["parallelism"] == number > 1
  pods = [environment(manifest, container, i) for i in range(number)]
  assert {processes.environment(pod, tpu=True) for pod in pods} == {"jax"}
  assert [int(pod["JAX_PROCESS_ID"]) for pod in pods] == list(range(number))
  assert {pod["JAX_NUM_PROCESSES"] for pod in pods} == {str(number)}
  [port] = container["ports"]
  address = f"paligemma-host-0-0.paligemma:{port['containerPort']}"
  assert {pod["JAX_COORDINATOR_ADDRESS"] for pod in pods} == {address}


def test_the_hosts_make_up_the_slice(job, container):
  topology = job["template"]["spec"]["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
  chips = math.prod(int(n) for n in topology.split("x"))
  assert container["resources"]["limits"]["google.com/tpu"] * job["completions"] == chips


def action(job, code: int, conditions=()) -> str:
  """What the first rule that matches does with a pod that ended so; Count: none matches."""
  for rule in job["podFailurePolicy"]["rules"]:
    codes, wanted = rule.get("onExitCodes"), rule.get("onPodConditions", ())
    assert (codes is None) == bool(wanted)  # a rule has exactly one of them
    if codes and codes["operator"] == "In" and code in codes["values"]:
      return rule["action"]
    if any(c["type"] in conditions and c["status"] == "True" for c in wanted):
      return rule["action"]
  return "Count"


def test_preemption_is_no_failure_and_wrong_input_is(manifest, job):
  assert action(job, loop.PREEMPTED) == "Ignore"
  assert action(job, 137, ["DisruptionTarget"]) == "Ignore"
  assert action(job, 2) == "FailJob"
  assert action(job, 1) == "Count" and job["backoffLimit"] == 0
  [rule] = manifest["spec"]["failurePolicy"]["rules"]
  assert rule["action"] == "FailJobSet" and rule["onJobFailureReasons"] == ["PodFailurePolicy"]


def test_the_command_is_one_of_ours_on_the_shared_volume(job, container):
  program, *command = container["command"] + container["args"]
  args = main.build_parser().parse_args(command)
  mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
  assert program == "paligemma" and args.workdir.startswith(f"{mounts['runs']}/")
  assert set(mounts) == {volume["name"] for volume in job["template"]["spec"]["volumes"]}
